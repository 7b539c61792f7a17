// Package store owns everything that shale keeps between two commands:
// content, the names that point at it, and the records of builds and
// containers.
//
// No daemon guards the directory; any number of processes may hold it open.
// Three rules keep it whole:
//
//   - what is visible is complete: files are written aside, synced and renamed;
//   - what is named is kept: the collector removes only what nothing refers to;
//   - what is in flight is leased: a lease lives exactly as long as its process.
//
// Whoever wants to use content that nothing of his own refers to yet takes a
// [Lease] on its digest first and looks second; the other order races the
// collector. The layout on disk is in docs/format/store.md.
package store
