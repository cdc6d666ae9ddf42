// Package runtime is an OCI container runtime: it makes containers from bundles and looks after them until they are
// deleted.
//
// The life of a container, each step a method:
//
//  1. LoadSpec and Parse turn a bundle into a Plan, or say why not. Nothing has been touched yet.
//  2. Runtime.Create takes the id by making its state directory, makes the cgroup, starts init, which makes the
//     namespaces and the root, runs the hooks, writes state.json, and returns with init waiting on the exec fifo.
//  3. Container.Start opens the fifo: init becomes the program of the spec.
//  4. Exec, Signal, Pause, Resume, Set, Stats, Processes work on what runs.
//  5. Delete kills what is left, removes cgroup, link and state, and runs the last hooks.
//
// A container that comes out of an image set has its processes from CRIU. Then steps 2 and 3 are:
//
//  2. Runtime.Prepare takes the id, makes the cgroup, mounts the root, and makes the network namespace with the link.
//  3. Prepared.PlaceInit puts the first process into the cgroup, RunHooks runs the hooks, Adopt writes state.json, and
//     Resumed is told when the processes run. Until then Discard undoes all of it.
//
// State is the only thing that is kept of a container. Whether it runs is asked of the kernel every time.
//
// A program that uses this package must call Init first thing when its first argument is "init": it is started again,
// from a sealed copy, to become the container's process. Linux only; cgroup v1 needs nothing special, cgroup v2 is best
// with Linux 5.14 (cgroup.kill), and pidfds need 5.3.
package runtime
