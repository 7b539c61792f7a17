// Package progress is what a long operation says while it goes on.
//
// An operation emits values and knows nothing of terminals; whoever called it
// decides whether they become a bar, a line or JSON. The package imports
// nothing and renders nothing.
package progress

// Event is one step of an operation. The zero value says nothing.
type Event struct {
	// ID is what the step is about, as a person would name it: the first
	// twelve digits of a layer's digest, a file. Empty means the operation
	// as a whole.
	ID string

	// Action is what happens to it, in Docker's words where Docker has
	// words: "Pulling fs layer", "Downloading", "Pull complete", "Pushed".
	Action string

	// Current and Total count bytes. A Total of 0 means that it isn't known.
	Current, Total int64

	// Message is a whole line for the person waiting, such as
	// "Status: Image is up to date for busybox:latest".
	Message string
}

// Sink takes events. It may be called from several goroutines at once and
// must not block for long. A nil Sink drops what it is given.
type Sink func(Event)

// Emit hands e to s.
func (s Sink) Emit(e Event) {
	if s != nil {
		s(e)
	}
}
