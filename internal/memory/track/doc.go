// Package track finds out which private anonymous memory the processes of a container wrote, while they run.
//
// A Set is opened for a set of processes. Each Round says, for every address space of the set, which pages have to be read
// since the Round before; Final says it for the last time, while nobody runs. Whoever reads all that is dirty, after each of
// them, has a true copy of everything at the end.
//
//	1 list      the processes, and which of them share an address space (vfork)
//	2 hold      an address space that is new, or was made by exec, gets its watcher: one that the kernel lets us have
//	3 areas     its private anonymous mappings, as CRIU would leave them to a lazy restore
//	4 look      the populated pages of these, and those that were written; they are armed again in the same step
//
// There are three kinds of watchers: writeProtect, softDirty, and everything, which is for who cannot be watched.
//
// Nothing stays behind in a process when the set is closed, or its owner killed: the kernel takes a userfaultfd back with
// its last descriptor, which is never left in the process itself. What cannot be tracked: pages that a device writes to, so
// these processes are told of as a whole in Final; and process_vm_writev of one process of the set into another that comes
// at the very moment of a Round.
package track
