// The bootstrap message as the C stage reads it. Parsing touches nothing but memory, so that it can be fuzzed by itself:
// see testdata/parse.c.

#ifndef MIGRATE_BOOTSTRAP_MESSAGE_H
#define MIGRATE_BOOTSTRAP_MESSAGE_H

#include <stddef.h>
#include <stdint.h>

// The same values stand in message.go.
#define MESSAGE_TYPE 0x4d47
#define MESSAGE_HEADER 16
#define MESSAGE_MAX (1 << 20)
#define MAX_JOINS 8
#define MAX_MAP_WORDS (3 * 340) // the kernel takes at most 340 lines of three numbers

struct text {
	const char *data; // ends with its only NUL, which len does not count; NULL: not sent
	size_t len;
};

// One namespace to join: its CLONE_NEW* flag, and its path, which is not terminated.
struct join {
	int flag, fd;
	struct text path;
};

struct message {
	uint32_t clone_flags;
	uint8_t setgroups, rootless, debug;
	struct text namespaces, uid_map, gid_map, newuidmap, newgidmap, oom_score_adj, time_offsets;
	struct join joins[MAX_JOINS];
	size_t join_count;
};

// message_length checks a header and returns how many bytes follow it, or -1 with the reason.
long message_length(const char header[MESSAGE_HEADER], char *reason, size_t size);

// message_parse reads the attributes that follow the header. The texts point into data. It returns 0, or -1 with the
// reason; then message is not to be used.
int message_parse(const char *data, size_t len, struct message *message, char *reason, size_t size);

// map_words cuts the lines of an id map at blanks, in place, and returns how many words it stored in words.
size_t map_words(char *map, char **words, size_t max);

#endif
