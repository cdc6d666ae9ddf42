// Package preflight tells what would stop a move, before anything is touched: findings, each with its cure.
//
//  1. Host looks at a host: its limits, the kernel's part in the memory engine, CRIU.
//  2. Scan looks at the processes of a container through /proc. What stands against a checkpoint becomes findings; what the
//     peer must be able to give becomes Needs, which travel to it.
//  3. Container looks at the container's configuration.
//  4. Arrive compares Needs and configuration with the host that is to take the container.
//
// Each reads facts first and judges them by a function of its own, which is tested by tables. A blocker is sure to make the
// move fail; what may go wrong is a warning. Nothing here changes, stops or interrupts a process, and nothing is left.
package preflight
