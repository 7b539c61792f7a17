// Command shale builds, stores, ships and runs container images.
package main

func main() {}
