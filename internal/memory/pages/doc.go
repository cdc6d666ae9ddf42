// Package pages brings private memory to the peer, outside of CRIU.
//
// The flow, at the source:
//
//  1. The tracker says which pages of which address spaces must be read (Change).
//  2. The workers of a Sender read them, 256 KB at a time, into the frame that they are filling.
//  3. Pages of zeros are found, the others digested, and the Ledger asked: the peer has that page, or an equal one, or here is
//     the slot that it belongs in. What need not be sent is closed up in place.
//  4. A full frame is written without its zero words, or compressed where that is faster than the link, or as it is (pace),
//     sealed with a digest, and sent on the first lane that is free.
//  5. The peer's store decodes it (Decoder), refuses what was altered, and writes the pages to their slots.
//  6. When the peer has acknowledged that all frames are stored, the round is settled (Ledger.Settle).
//
// In the end the runs of the ledger are the layout by which the peer's feeder finds the pages of the restored tasks.
//
// Nothing here grows with the memory moved, except the ledger: 28 bytes for each page up to 6 GB, bits beyond.
package pages
