// Reads the bootstrap message. Whoever sends it is our own parent; it is checked to the last byte all the same, for
// what the parent was told comes from a config that somebody else wrote.

#define _GNU_SOURCE
#include "message.h"

#include <linux/netlink.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

_Static_assert(NLMSG_HDRLEN == MESSAGE_HEADER, "the header is netlink's");

enum attribute {
	ATTR_CLONE_FLAGS = 1,
	ATTR_NAMESPACES,
	ATTR_UID_MAP,
	ATTR_GID_MAP,
	ATTR_NEWUIDMAP,
	ATTR_NEWGIDMAP,
	ATTR_SETGROUPS,
	ATTR_OOM_SCORE_ADJ,
	ATTR_ROOTLESS,
	ATTR_TIME_OFFSETS,
	ATTR_DEBUG,
};

// Where a parser says why it gave up.
struct complaint {
	char *reason;
	size_t size;
};

static int __attribute__((format(printf, 2, 3))) complain(struct complaint *c, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(c->reason, c->size, format, args);
	va_end(args);
	return -1;
}

long message_length(const char header[MESSAGE_HEADER], char *reason, size_t size)
{
	struct complaint c = { reason, size };
	struct nlmsghdr h;
	memcpy(&h, header, sizeof(h));
	if (h.nlmsg_type != MESSAGE_TYPE || h.nlmsg_len < NLMSG_HDRLEN || h.nlmsg_len > MESSAGE_MAX)
		return complain(&c, "bad header: type %#x, length %u", h.nlmsg_type, h.nlmsg_len);
	return h.nlmsg_len - NLMSG_HDRLEN;
}

static int read_u32(const char *payload, size_t len, uint32_t *value, struct complaint *c)
{
	if (len != sizeof(*value))
		return complain(c, "number of %zu bytes", len);
	memcpy(value, payload, sizeof(*value));
	return 0;
}

static int read_flag(const char *payload, size_t len, uint8_t *flag, struct complaint *c)
{
	uint32_t value = 0;
	if (read_u32(payload, len, &value, c) < 0)
		return -1;
	*flag = value != 0;
	return 0;
}

static int read_text(const char *payload, size_t len, struct text *text, struct complaint *c)
{
	// A NUL inside would hide what follows from every string function, and only from those.
	if (len == 0 || memchr(payload, '\0', len) != payload + len - 1)
		return complain(c, "text without an end, or with two");
	*text = (struct text) { payload, len - 1 };
	return 0;
}

static int read_attribute(unsigned type, const char *payload, size_t len, struct message *m, struct complaint *c)
{
	switch (type) {
	case ATTR_CLONE_FLAGS: return read_u32(payload, len, &m->clone_flags, c);
	case ATTR_NAMESPACES: return read_text(payload, len, &m->namespaces, c);
	case ATTR_UID_MAP: return read_text(payload, len, &m->uid_map, c);
	case ATTR_GID_MAP: return read_text(payload, len, &m->gid_map, c);
	case ATTR_NEWUIDMAP: return read_text(payload, len, &m->newuidmap, c);
	case ATTR_NEWGIDMAP: return read_text(payload, len, &m->newgidmap, c);
	case ATTR_SETGROUPS: return read_flag(payload, len, &m->setgroups, c);
	case ATTR_OOM_SCORE_ADJ: return read_text(payload, len, &m->oom_score_adj, c);
	case ATTR_ROOTLESS: return read_flag(payload, len, &m->rootless, c);
	case ATTR_TIME_OFFSETS: return read_text(payload, len, &m->time_offsets, c);
	case ATTR_DEBUG: return read_flag(payload, len, &m->debug, c);
	}
	return complain(c, "unknown attribute %u", type);
}

static int namespace_flag(struct text name)
{
	static const struct { const char *name; int flag; } known[] = {
		{ "user", CLONE_NEWUSER }, { "mnt", CLONE_NEWNS }, { "pid", CLONE_NEWPID }, { "net", CLONE_NEWNET },
		{ "ipc", CLONE_NEWIPC }, { "uts", CLONE_NEWUTS }, { "cgroup", CLONE_NEWCGROUP }, { "time", CLONE_NEWTIME },
	};
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strlen(known[i].name) == name.len && !memcmp(known[i].name, name.data, name.len))
			return known[i].flag;
	return 0;
}

// parse_joins cuts "type:path,type:path".
static int parse_joins(struct message *m, struct complaint *c)
{
	const char *at = m->namespaces.data, *end = at + m->namespaces.len;
	while (at < end) {
		const char *comma = memchr(at, ',', end - at);
		const char *stop = comma ? comma : end;
		const char *colon = memchr(at, ':', stop - at);
		if (!colon || m->join_count == MAX_JOINS)
			return complain(c, "bad list of namespaces: %s", m->namespaces.data);
		struct text name = { at, colon - at };
		int flag = namespace_flag(name);
		if (!flag)
			return complain(c, "unknown namespace type %.*s", (int)name.len, name.data);
		m->joins[m->join_count++] = (struct join) { flag, -1, { colon + 1, stop - colon - 1 } };
		at = comma ? comma + 1 : end;
	}
	return 0;
}

int message_parse(const char *data, size_t len, struct message *m, char *reason, size_t size)
{
	struct complaint c = { reason, size };
	*m = (struct message) { 0 };
	while (len > 0) {
		struct nlattr a;
		if (len < NLA_HDRLEN)
			return complain(&c, "%zu bytes too many", len);
		memcpy(&a, data, sizeof(a));
		if (a.nla_len < NLA_HDRLEN || a.nla_len > len)
			return complain(&c, "attribute %u has a length of %u", a.nla_type, a.nla_len);
		if (read_attribute(a.nla_type, data + NLA_HDRLEN, a.nla_len - NLA_HDRLEN, m, &c) < 0)
			return -1;
		size_t step = NLA_ALIGN(a.nla_len);
		if (step > len)
			step = len;
		data += step;
		len -= step;
	}
	return parse_joins(m, &c);
}

size_t map_words(char *map, char **words, size_t max)
{
	size_t count = 0;
	char *rest = NULL;
	for (char *word = strtok_r(map, " \n", &rest); word && count < max; word = strtok_r(NULL, " \n", &rest))
		words[count++] = word;
	return count;
}
