// Package handover moves a running container from one host to another so that there are never two running copies, and
// one as long as both hosts can be asked.
//
// It holds the two state machines and nothing else: containers, CRIU, files and connections are reached through the
// interfaces in ports.go, so every step is tested with twins, without root. The steps, as they stand in push.go and
// receive.go:
//
//	source (Push)                                       peer (Receive)
//	1 Hello                                          -> can it be taken? reserve the id      <- Offer or Failure
//	2 SyncTree, pass over each tree while it runs    -> apply                                <- TreeSynced
//	3 Prepare                                        -> mounts, cgroups, network, CRIU       <- Prepared
//	  memory, in rounds while it runs; PagesSent       -> store                                <- PagesStored
//	4 dump: freeze, Frozen
//	5 images and the trees' deltas while it dumps    -> spool, apply
//	  the last of the memory
//	  Images                                         -> verify, restore up to the gate
//	6                                                                                        <- Ready
//	7 journal commit-sent; Commit                    -> journal committed; open the gate
//	8                                                   journal running: from here on it is the peer's
//	9 kill, journal done, delete                                                             <- Done
//
// In the modes that leave memory behind the journal says "owing" at 8, and Done tells how much is missing. Before 9 the pages
// follow (follow.go, debtor.go), and another Done says that nothing is missing.
//
// Before commit-sent every failure on either side undoes everything: the source runs on. After it the source thaws only
// when the peer says that it has recorded "aborted"; as long as the peer can't be asked, the container stays frozen and the
// outcome is unknown. Resolve ends that state from the journals.
package handover
