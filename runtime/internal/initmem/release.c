#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <link.h>
#include <stddef.h>
#include <sys/mman.h>

struct request {
	ElfW(Addr) page; // the size of one
	int error;       // the first errno
};

// release_segments drops the pages of one program or library that nobody can have written to. They are the file's: what
// is needed again is there again at its next touch. Segments that the loader relocates are writable ones.
static int release_segments(struct dl_phdr_info *info, size_t size, void *data)
{
	struct request *request = data;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
		if (segment->p_type != PT_LOAD || (segment->p_flags & PF_W))
			continue;
		// The kernel rounds the length up, and wants the start of a page, as the loader did.
		ElfW(Addr) begin = info->dlpi_addr + segment->p_vaddr;
		ElfW(Addr) start = begin & ~(request->page - 1);
		if (madvise((void *) start, begin + segment->p_filesz - start, MADV_DONTNEED) < 0 && !request->error)
			request->error = errno;
	}
	return 0;
}

// release_program returns 0, or the errno of the first segment that stayed.
int release_program(size_t page)
{
	struct request request = { .page = page };
	dl_iterate_phdr(release_segments, &request);
	return request.error;
}
