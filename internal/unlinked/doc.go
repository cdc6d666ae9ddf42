// Package unlinked carries files ahead of a move that are in use and have no name any more. A file without a name can't be
// found in a tree; CRIU copies it while the container stands still, and up to 4 GiB of it.
//
//  1. Source.Look finds such files of a container: by its processes' descriptors and mappings, on mounts whose root
//     directory travels. It opens each, so that its inode is nobody else's from then on.
//  2. Source.Pass sends what is in them while the container runs; the Target puts it into a file without a name (O_TMPFILE) on
//     the filesystem where the container will have it.
//  3. CRIU's dump is told that these files are somebody else's affair: Source.Carried.
//  4. Source.Delta sends the rest while the container stands still.
//  5. Target.Name gives each a name for a moment. With it CRIU's restore finds it as one whose name it has made itself
//     (link_remap): it opens the file, and the name goes.
//
// What is compared: a block that was sent is known by its digest. A write through a mapping leaves no trace in the file's
// times, and a long write is stamped when it begins, so that times prove nothing: whatever anybody has open for writing, or
// mapped so, is read again in the freeze, by several processors.
//
// What was sent counts as held by the peer when it has answered after it (listed, taken). A Pass that failed may have arrived in
// part: what it has sent, made a hole or announced is in doubt, and the next one sends it again, over whichever channel.
//
// The frames of one pass; the source speaks on the left:
//
//	file   index | size | places                         ->   for those that are new, or seen at another place
//	listed                                               ->   after at least one, and before the end of a Pass
//	                                                     <-   taken  { index }: those that this filesystem can't have
//	data   index | offset | bytes                        ->
//	hole   index | offset | length                       ->
//	attr   index | size mode uid gid mtime               ->   the file is complete
//	drop   index                                         ->   nobody has it open any more
//	still                                                ->   nothing was found to send for a while
//	end                                                  ->   the pass is over; only taken is ever sent back
//
//	frame  kind u8 | numbers as uvarint | the rest as it is
//	places count | { mount device inode root | point string | path string }
package unlinked
