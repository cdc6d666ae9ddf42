// Parses one bootstrap message after another, under the address sanitizer, and prints what the C stage would act on. The
// tests build it (parser_test.go) and compare its words with those of a parser in Go.
//
//   in:  length of the message (u32), the message
//   out: length of the answer (u32), the answer: "error: REASON", or lines NAME=VALUE

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../message.h"

static char *answer;
static FILE *out;

static void print_text(const char *name, struct text text)
{
	if (!text.data)
		return;
	if (strlen(text.data) != text.len)
		abort(); // what the rest of the stage takes for a string would not be one
	fprintf(out, "%s=%s\n", name, text.data);
}

static void print_words(struct text map)
{
	char *words[MAX_MAP_WORDS], *copy = map.data ? strdup(map.data) : NULL;
	if (copy)
		fprintf(out, "words=%zu\n", map_words(copy, words, MAX_MAP_WORDS));
	free(copy);
}

static void parse(const char *data, size_t len)
{
	char reason[220];
	struct message m;
	if (len < MESSAGE_HEADER) {
		fprintf(out, "error: short");
		return;
	}
	long rest = message_length(data, reason, sizeof(reason));
	if (rest >= 0 && (size_t) rest != len - MESSAGE_HEADER) {
		fprintf(out, "error: cut");
		return;
	}
	if (rest < 0 || message_parse(data + MESSAGE_HEADER, rest, &m, reason, sizeof(reason)) < 0) {
		fprintf(out, "error: %s", reason);
		return;
	}
	fprintf(out, "flags=%u\nsetgroups=%u\nrootless=%u\ndebug=%u\n", m.clone_flags, m.setgroups, m.rootless, m.debug);
	print_text("namespaces", m.namespaces);
	print_text("uid_map", m.uid_map);
	print_text("gid_map", m.gid_map);
	print_text("newuidmap", m.newuidmap);
	print_text("newgidmap", m.newgidmap);
	print_text("oom_score_adj", m.oom_score_adj);
	print_text("time_offsets", m.time_offsets);
	for (size_t i = 0; i < m.join_count; i++)
		fprintf(out, "join=%d:%.*s\n", m.joins[i].flag, (int)m.joins[i].path.len, m.joins[i].path.data);
	print_words(m.uid_map);
}

int main(void)
{
	uint32_t len;
	while (fread(&len, sizeof(len), 1, stdin) == 1) {
		// A buffer of its own and of no byte more: the sanitizer sees the first one read beyond.
		char *data = malloc(len ? len : 1);
		size_t size = 0;
		if (!data || fread(data, 1, len, stdin) != len)
			return 1;
		out = open_memstream(&answer, &size);
		parse(data, len);
		fclose(out);
		uint32_t n = (uint32_t) size;
		fwrite(&n, sizeof(n), 1, stdout);
		fwrite(answer, 1, size, stdout);
		fflush(stdout);
		free(answer);
		free(data);
	}
	return 0;
}
