// SPDX-License-Identifier: GPL-2.0-only
/*
 * Runs operations on the C memblock and says what came of each.
 *
 * This file is compiled together with an unpacked kernel's own mm/memblock.c (it includes it, so that the static functions and
 * variables can be reached), against the headers that the kernel's tools/testing/memblock brings. What memblock needs from the
 * rest of a kernel is here: a log, slab, debugfs, panic(), and addresses. Physical addresses are free numbers; only an array of
 * regions that memblock puts somewhere is backed by real memory (see host_va()).
 *
 * memblock_serve(in, out) reads batches and answers each:
 *   request:  u32 count, then count * struct op
 *   answer:   u64 bytes, then per operation
 *             u32 bytes that follow; u32 status; u32 number of results; results (u64 each); u32 length of log; log;
 *             u32 switches; u64 current limit; and for memory and reserved: u32 regions, u32 room, u64 total, u64 array, then
 *             per region u64 base, u64 size, u32 flags, s32 node
 * After a panic() or BUG_ON() the rest up to the next RESET is skipped with status 3.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <linux/kernel.h>
#include <linux/slab.h>
#include <linux/init.h>
#include <linux/bitops.h>
#include <linux/poison.h>
#include <linux/pfn.h>
#include <linux/debugfs.h>
#include <linux/kmemleak.h>
#include <linux/seq_file.h>
#include <linux/memblock.h>
#include <linux/io.h>
#include "internal.h"

/* What is said, one line each. */

static char *log_text;
static size_t log_len, log_room;

static void log_bytes(const char *text, size_t len)
{
	if (log_len + len + 1 > log_room) {
		log_room = (log_len + len + 1) * 2;
		log_text = realloc(log_text, log_room);
	}
	memcpy(log_text + log_len, text, len);
	log_len += len;
	log_text[log_len] = 0;
}

/* Format as the kernel does: %pa is a physical address. Returns 0 if there was a %pS, the name of a code address. */
static int format(char *to, size_t room, const char *fmt, va_list args)
{
	size_t at = 0;
	int keep = 1;

	while (*fmt && at + 1 < room) {
		char spec[16];
		size_t n = 0;
		int longs = 0;

		if (*fmt != '%') {
			to[at++] = *fmt++;
			continue;
		}
		if (!strncmp(fmt, "%pa", 3)) {
			uint64_t *value = va_arg(args, uint64_t *);

			at += snprintf(to + at, room - at, "0x%016llx", (unsigned long long)*value);
			fmt += fmt[3] == 'p' ? 4 : 3;
			continue;
		}
		if (!strncmp(fmt, "%pS", 3)) {
			(void)va_arg(args, void *);
			keep = 0;
			fmt += 3;
			continue;
		}
		do {
			longs += *fmt == 'l' || *fmt == 'z';
			spec[n++] = *fmt++;
		} while (n < sizeof(spec) - 2 && !strchr("diuxXcs%", spec[n - 1] == '%' && n == 1 ? ' ' : spec[n - 1]));
		spec[n] = 0;
		if (spec[n - 1] == 's')
			at += snprintf(to + at, room - at, spec, va_arg(args, char *));
		else if (spec[n - 1] == '%')
			to[at++] = '%';
		else if (strchr(spec, '#'))		/* the kernel writes 0x0 where libc writes 0 */
			at += snprintf(to + at, room - at, "0x%lx", longs ? va_arg(args, long) : (long)va_arg(args, unsigned int));
		else if (longs)
			at += snprintf(to + at, room - at, spec, va_arg(args, long));
		else
			at += snprintf(to + at, room - at, spec, va_arg(args, int));
	}
	to[at] = 0;
	return keep;
}

static void say(const char *fmt, ...)
{
	char line[512];
	va_list args;

	va_start(args, fmt);
	if (format(line, sizeof(line), fmt, args)) {
		size_t len = strlen(line);

		while (len && line[len - 1] == '\n')
			len--;
		line[len++] = '\n';
		log_bytes(line, len);
	}
	va_end(args);
}

/* panic() and BUG_ON() end the run up to the next RESET. */

static jmp_buf out_of_here;

static void die(int status, const char *fmt, ...)
{
	char line[512];
	va_list args;

	va_start(args, fmt);
	format(line, sizeof(line), fmt, args);
	va_end(args);
	say("%s", line);
	longjmp(out_of_here, status);
}

#undef printk
#define printk say
#undef pr_warn_ratelimited
#define pr_warn_ratelimited say
#define panic(fmt, ...) die(1, "Kernel panic - not syncing: " fmt, ##__VA_ARGS__)
#undef BUG_ON
#define BUG_ON(condition) do { if (condition) die(2, "kernel BUG at mm/memblock.c %s()!", __func__); } while (0)
#undef WARN_ON
#define WARN_ON(condition) ({								\
	int __warn = !!(condition);							\
	if (__warn)									\
		say("WARNING: at mm/memblock.c %s()", __func__);			\
	__warn;										\
})
#undef WARN_ON_ONCE
static unsigned int boots;		/* places that speak once speak again after a RESET */
#define WARN_ON_ONCE(condition) ({							\
	static unsigned int __spoken;							\
	int __warn = !!(condition);							\
	if (__warn && __spoken != boots) {						\
		__spoken = boots;							\
		say("WARNING: at mm/memblock.c %s()", __func__);			\
	}										\
	__warn;										\
})
#undef WARN_ONCE
#define WARN_ONCE(condition, text...) ({						\
	static unsigned int __spoken;							\
	int __warn = !!(condition);							\
	if (__warn && __spoken != boots) {						\
		__spoken = boots;							\
		say(text);								\
		say("WARNING: at mm/memblock.c %s()", __func__);			\
	}										\
	__warn;										\
})
#define dump_stack() say("Call Trace:")

/*
 * Where an array of regions lies: memblock thinks in physical addresses, the compiler needs memory. Each array gets memory of its
 * own. (If somebody frees the place of an array, the next one can come to lie there; in a kernel that destroys the first.)
 */

struct host { uint64_t phys; char *mem; };
static struct host hosts[64];
static int nr_hosts;
#define HOST_ROOM (4UL << 20)

static void *host_va(uint64_t phys)
{
	if (nr_hosts == 64)
		die(2, "oracle: too many arrays");
	hosts[nr_hosts].phys = phys;
	hosts[nr_hosts].mem = malloc(HOST_ROOM);
	return hosts[nr_hosts++].mem;
}

static uint64_t host_pa(const void *mem)
{
	int i;

	for (i = 0; i < nr_hosts; i++)
		if ((const char *)mem >= hosts[i].mem && (const char *)mem < hosts[i].mem + HOST_ROOM)
			return hosts[i].phys + ((const char *)mem - hosts[i].mem);
	return (uint64_t)(uintptr_t)mem;
}

static int is_host(const void *mem)
{
	return host_pa(mem) != (uint64_t)(uintptr_t)mem;
}

static void *set_memory(void *mem, int c, size_t n)
{
	return is_host(mem) || c ? memset(mem, c, n) : mem;	/* boot memory that was allocated is a number only */
}

#undef __va
#undef __pa
#define __va(x) host_va(x)
#define __pa(x) host_pa((const void *)(x))

/* slab */

static bool slab_up;
static void *slabs[64];
static int nr_slabs;

bool slab_is_available(void)
{
	return slab_up;
}

void *kmalloc(size_t size, gfp_t gfp)
{
	if (nr_slabs == 64)
		die(2, "oracle: too many objects");
	return slabs[nr_slabs++] = calloc(1, size);
}

void kfree(void *mem)
{
}

/* debugfs */

static void seq_puts(struct seq_file *m, const char *text)
{
	log_bytes(text, strlen(text));
}

static void seq_putc(struct seq_file *m, char c)
{
	log_bytes(&c, 1);
}

static void seq_printf(struct seq_file *m, const char *fmt, ...)
{
	char text[256];
	va_list args;

	va_start(args, fmt);
	format(text, sizeof(text), fmt, args);
	va_end(args);
	log_bytes(text, strlen(text));
}

struct fake_seq { void *private; };
#define seq_file fake_seq
#define DEFINE_SHOW_ATTRIBUTE(name) static int name ## _fops
#define debugfs_create_dir(name, parent) NULL
#define debugfs_create_file(name, mode, parent, data, fops) ((void)(parent), (void)(data), (void)(fops))
struct dentry;
#undef __initcall
#define __initcall(fn) static int (*fn ## _call)(void) __attribute__((unused)) = fn
#undef ilog2
#define ilog2(n) (__builtin_ctz(n))

/* Cache lines of x86_64. */
#undef SMP_CACHE_BYTES
#define SMP_CACHE_BYTES 64

/* What goes to the page allocator, neighbours as one range. */

static unsigned long freed_start, freed_end;
static long totalram;

static void say_freed(void)
{
	if (freed_start < freed_end)
		say("free 0x%lx-0x%lx", freed_start, freed_end);
	freed_start = freed_end = 0;
}

static void free_pages(unsigned long pfn, unsigned int order)
{
	if (pfn != freed_end) {
		say_freed();
		freed_start = pfn;
	}
	freed_end = pfn + (1UL << order);
}

static void reserve_pages(unsigned long start, unsigned long end, int nid)
{
	say("reserve 0x%lx-0x%lx %d", start, end, nid);
}

static int node_of_pfn(unsigned long pfn)
{
	unsigned long start, end;
	int nid = memblock_search_pfn_nid(pfn, &start, &end);

	return nid >= 0 && nid < MAX_NUMNODES ? nid : 0;
}

#define memblock_free_pages(page, pfn, order) free_pages(pfn, order)
#define reserve_3(start, end, nid, ...) reserve_pages(start, end, nid)
#define reserve_bootmem_region(args...) reserve_3(args, NUMA_NO_NODE, 0)
#define early_pfn_to_nid node_of_pfn
#define totalram_pages_add(n) (totalram += (n))
#define totalram_pages_inc() (totalram++)

bool movable_node_enabled;

/* The simulator's struct zone has no place; this one has, for the walk over a zone. */
struct placed_zone {
	atomic_long_t managed_pages;
	unsigned long zone_start_pfn, end_pfn;
	int nid;
};
#define zone placed_zone
#define zone_to_nid(z) ((z)->nid)
#define zone_end_pfn(z) ((z)->end_pfn)
#ifndef U64_MAX
#define U64_MAX ((u64)~0ULL)
#endif
#ifndef ULONG_MAX
#define ULONG_MAX (~0UL)
#endif
#define CONFIG_DEFERRED_STRUCT_PAGE_INIT

#define memset set_memory
#pragma GCC diagnostic ignored "-Wincompatible-pointer-types"
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include "memblock.c"
#undef memset
#undef zone

/* The operations; their numbers are their places here, read by the Python side from this list. */

enum verb {
	RESET,			/* switches: 1 movable_node, 2 kernelcore=mirror, 4 memblock=debug */
	ADD, ADD_NODE, REMOVE, RESERVE, PHYS_FREE, FREE,
	MARK_HOTPLUG, CLEAR_HOTPLUG, MARK_MIRROR, MARK_NOMAP, CLEAR_NOMAP, RESERVED_MARK_NOINIT,
	SET_NODE, TRIM_MEMORY, ENFORCE_MEMORY_LIMIT, CAP_MEMORY_RANGE, MEM_LIMIT_REMOVE_MAP,
	SET_BOTTOM_UP, SET_CURRENT_LIMIT, GET_CURRENT_LIMIT, ALLOW_RESIZE, SET_SLAB,
	PHYS_ALLOC, PHYS_ALLOC_RANGE, PHYS_ALLOC_TRY_NID, ALLOC_RANGE_NID,
	ALLOC, ALLOC_RAW, ALLOC_FROM, ALLOC_LOW, ALLOC_NODE,
	ALLOC_TRY_NID, ALLOC_TRY_NID_RAW, ALLOC_EXACT_NID_RAW,
	PHYS_MEM_SIZE, RESERVED_SIZE, ESTIMATED_NR_FREE_PAGES, START_OF_DRAM, END_OF_DRAM, HAS_MIRROR, BOTTOM_UP,
	IS_RESERVED, IS_MEMORY, IS_MAP_MEMORY, IS_REGION_MEMORY, IS_REGION_RESERVED, OVERLAPS_REGION, ADDRS_OVERLAP,
	SEARCH_PFN_NID, VALIDATE_NUMA_COVERAGE,
	MEM_RANGE, MEM_RANGE_REV, RESERVED_MEM_RANGE, FREE_MEM_RANGE, FREE_MEM_RANGE_REVERSE, ANY_RANGE, ANY_RANGE_REV,
	MEM_PFN_RANGE, FREE_MEM_PFN_RANGE_IN_ZONE, MEM_REGION, RESERVED_MEM_REGION,
	DUMP_ALL, DEBUG_SHOW, DOUBLE_ARRAY,
	RESERVE_MEM,		/* the text is in the arguments */
	RESERVE_MEM_FIND,
	FREE_ALL,		/* max_low_pfn; logs what goes to the page allocator */
	FREE_LATE,
	NR_VERBS
};

struct op {
	uint32_t verb;
	int32_t pad;
	uint64_t a[6];
};

static uint64_t *results;
static size_t nr_results, room_results;

static void answer(uint64_t value)
{
	if (nr_results == room_results)
		results = realloc(results, (room_results = room_results * 2 + 64) * sizeof(*results));
	results[nr_results++] = value;
}

static void answer3(uint64_t x, uint64_t y, uint64_t z)
{
	answer(x);
	answer(y);
	answer(z);
}

static struct memblock initial;

static void reset(uint64_t switches)
{
	static int known;

	if (!known) {
		initial = memblock;
		known = 1;
	}
	memblock = initial;
	memset(memblock_memory_init_regions, 0, sizeof(memblock_memory_init_regions));
	memset(memblock_reserved_init_regions, 0, sizeof(memblock_reserved_init_regions));
	while (nr_hosts)
		free(hosts[--nr_hosts].mem);
	while (nr_slabs)
		free(slabs[--nr_slabs]);
	memblock_can_resize = memblock_memory_in_slab = memblock_reserved_in_slab = 0;
	system_has_some_mirror = false;
	slab_up = false;
	movable_node_enabled = switches & 1;
	mirrored_kernelcore = switches & 2;
	memblock_debug = !!(switches & 4);
#ifdef RESERVE_MEM_MAX_ENTRIES
	memset(reserved_mem_table, 0, sizeof(reserved_mem_table));
	reserved_mem_count = 0;
#endif
	boots++;
}

static struct memblock_type *type_of(uint64_t number)
{
	return number == 2 ? NULL : number ? &memblock.reserved : &memblock.memory;
}

static uint64_t mem(void *pointer)
{
	return (uint64_t)(uintptr_t)pointer;
}

static void run(const struct op *op)
{
	const uint64_t *a = op->a;
	phys_addr_t start, end;
	unsigned long spfn, epfn;
	struct memblock_region *r;
	struct fake_seq seq;
	int nid, n;
	u64 i;

	switch (op->verb) {
	case RESET: reset(a[0]); break;
	case ADD: answer(memblock_add(a[0], a[1])); break;
	case ADD_NODE: answer(memblock_add_node(a[0], a[1], (int)a[2], a[3])); break;
	case REMOVE: answer(memblock_remove(a[0], a[1])); break;
	case RESERVE: answer(memblock_reserve(a[0], a[1])); break;
	case PHYS_FREE: answer(memblock_phys_free(a[0], a[1])); break;
	case FREE: memblock_free((void *)(uintptr_t)a[0], a[1]); break;
	case MARK_HOTPLUG: answer(memblock_mark_hotplug(a[0], a[1])); break;
	case CLEAR_HOTPLUG: answer(memblock_clear_hotplug(a[0], a[1])); break;
	case MARK_MIRROR: answer(memblock_mark_mirror(a[0], a[1])); break;
	case MARK_NOMAP: answer(memblock_mark_nomap(a[0], a[1])); break;
	case CLEAR_NOMAP: answer(memblock_clear_nomap(a[0], a[1])); break;
	case SET_NODE: answer(memblock_set_node(a[0], a[1], type_of(a[2]), (int)a[3])); break;
	case TRIM_MEMORY: memblock_trim_memory(a[0]); break;
	case ENFORCE_MEMORY_LIMIT: memblock_enforce_memory_limit(a[0]); break;
	case CAP_MEMORY_RANGE: memblock_cap_memory_range(a[0], a[1]); break;
	case MEM_LIMIT_REMOVE_MAP: memblock_mem_limit_remove_map(a[0]); break;
	case SET_BOTTOM_UP: memblock_set_bottom_up(a[0]); break;
	case SET_CURRENT_LIMIT: memblock_set_current_limit(a[0]); break;
	case GET_CURRENT_LIMIT: answer(memblock_get_current_limit()); break;
	case ALLOW_RESIZE: memblock_allow_resize(); break;
	case SET_SLAB: slab_up = a[0]; break;
	case PHYS_ALLOC: answer(memblock_phys_alloc(a[0], a[1])); break;
	case PHYS_ALLOC_RANGE: answer(memblock_phys_alloc_range(a[0], a[1], a[2], a[3])); break;
	case PHYS_ALLOC_TRY_NID: answer(memblock_phys_alloc_try_nid(a[0], a[1], (int)a[2])); break;
	case ALLOC_RANGE_NID: answer(memblock_alloc_range_nid(a[0], a[1], a[2], a[3], (int)a[4], a[5])); break;
	case ALLOC: answer(mem(memblock_alloc(a[0], a[1]))); break;
	case ALLOC_RAW: answer(mem(memblock_alloc_raw(a[0], a[1]))); break;
	case ALLOC_FROM: answer(mem(memblock_alloc_from(a[0], a[1], a[2]))); break;
	case ALLOC_LOW: answer(mem(memblock_alloc_low(a[0], a[1]))); break;
	case ALLOC_NODE: answer(mem(memblock_alloc_node(a[0], a[1], (int)a[2]))); break;
	case ALLOC_TRY_NID: answer(mem(memblock_alloc_try_nid(a[0], a[1], a[2], a[3], (int)a[4]))); break;
	case ALLOC_TRY_NID_RAW: answer(mem(memblock_alloc_try_nid_raw(a[0], a[1], a[2], a[3], (int)a[4]))); break;
	case ALLOC_EXACT_NID_RAW: answer(mem(memblock_alloc_exact_nid_raw(a[0], a[1], a[2], a[3], (int)a[4]))); break;
	case PHYS_MEM_SIZE: answer(memblock_phys_mem_size()); break;
	case RESERVED_SIZE: answer(memblock_reserved_size()); break;
	case START_OF_DRAM: answer(memblock_start_of_DRAM()); break;
	case END_OF_DRAM: answer(memblock_end_of_DRAM()); break;
	case BOTTOM_UP: answer(memblock_bottom_up()); break;
	case IS_RESERVED: answer(memblock_is_reserved(a[0])); break;
	case IS_MEMORY: answer(memblock_is_memory(a[0])); break;
	case IS_MAP_MEMORY: answer(memblock_is_map_memory(a[0])); break;
	case IS_REGION_MEMORY: answer(memblock_is_region_memory(a[0], a[1])); break;
	case IS_REGION_RESERVED: answer(memblock_is_region_reserved(a[0], a[1])); break;
	case OVERLAPS_REGION: answer(memblock_overlaps_region(type_of(a[2]), a[0], a[1])); break;
	case ADDRS_OVERLAP: answer(memblock_addrs_overlap(a[0], a[1], a[2], a[3])); break;
	case SEARCH_PFN_NID:
		spfn = epfn = 0;
		nid = memblock_search_pfn_nid(a[0], &spfn, &epfn);
		answer3(nid, spfn, epfn);
		break;
	case MEM_RANGE: for_each_mem_range(i, &start, &end) { answer(start); answer(end); } break;
	case MEM_RANGE_REV: for_each_mem_range_rev(i, &start, &end) { answer(start); answer(end); } break;
	case RESERVED_MEM_RANGE: for_each_reserved_mem_range(i, &start, &end) { answer(start); answer(end); } break;
	case FREE_MEM_RANGE:
		for_each_free_mem_range(i, (int)a[0], a[1], &start, &end, &nid)
			answer3(start, end, nid);
		break;
	case FREE_MEM_RANGE_REVERSE:
		for_each_free_mem_range_reverse(i, (int)a[0], a[1], &start, &end, &nid)
			answer3(start, end, nid);
		break;
	case ANY_RANGE:
		__for_each_mem_range(i, type_of(a[0]), type_of(a[1]), (int)a[2], a[3], &start, &end, &nid)
			answer3(start, end, nid);
		break;
	case ANY_RANGE_REV:
		__for_each_mem_range_rev(i, type_of(a[0]), type_of(a[1]), (int)a[2], a[3], &start, &end, &nid)
			answer3(start, end, nid);
		break;
	case MEM_PFN_RANGE: for_each_mem_pfn_range(n, (int)a[0], &spfn, &epfn, &nid) answer3(spfn, epfn, nid); break;
	case FREE_MEM_PFN_RANGE_IN_ZONE: {
		struct placed_zone zone = { .nid = (int)a[0], .zone_start_pfn = a[1], .end_pfn = a[2] };

		i = 0;
		for (__next_mem_pfn_range_in_zone(&i, &zone, &spfn, &epfn); i != U64_MAX;
		     __next_mem_pfn_range_in_zone(&i, &zone, &spfn, &epfn)) {
			answer(spfn);
			answer(epfn);
		}
		break;
	}
	case MEM_REGION:
		for_each_mem_region(r)
			answer3(memblock_region_memory_base_pfn(r), memblock_region_memory_end_pfn(r), r->flags);
		break;
	case RESERVED_MEM_REGION:
		for_each_reserved_mem_region(r)
			answer3(memblock_region_reserved_base_pfn(r), memblock_region_reserved_end_pfn(r), r->flags);
		break;
	case FREE_ALL:
		totalram = 0;
		max_low_pfn = a[0];
		memblock_free_all();
		say_freed();
		answer(totalram);
		break;
	case FREE_LATE:
		totalram = 0;
		memblock_free_late(a[0], a[1]);
		say_freed();
		answer(totalram);
		break;
	case DUMP_ALL: memblock_dump_all(); break;
	case DEBUG_SHOW: seq.private = type_of(a[0]); memblock_debug_show(&seq, NULL); break;
	case DOUBLE_ARRAY: answer(memblock_double_array(type_of(a[0]), a[1], a[2])); break;
#ifdef RESERVE_MEM_MAX_ENTRIES		/* what came between 6.1 and 6.12 */
	case RESERVED_MARK_NOINIT: answer(memblock_reserved_mark_noinit(a[0], a[1])); break;
	case ESTIMATED_NR_FREE_PAGES: answer(memblock_estimated_nr_free_pages()); break;
	case HAS_MIRROR: answer(memblock_has_mirror()); break;
	case VALIDATE_NUMA_COVERAGE: answer(memblock_validate_numa_coverage(a[0])); break;
	case RESERVE_MEM: answer(reserve_mem((char *)a)); break;
	case RESERVE_MEM_FIND:
		start = end = 0;
		n = reserve_mem_find_by_name((const char *)a, &start, &end);
		answer3(n, start, end);
		break;
#endif
	default: die(2, "oracle: no operation %d here", (int)op->verb);
	}
}

static char *reply;
static size_t reply_len, reply_room;

static void put(const void *data, size_t len)
{
	if (reply_len + len > reply_room)
		reply = realloc(reply, reply_room = (reply_len + len) * 2);
	memcpy(reply + reply_len, data, len);
	reply_len += len;
}

static void put32(uint32_t value)
{
	put(&value, sizeof(value));
}

static void put64(uint64_t value)
{
	put(&value, sizeof(value));
}

static void put_type(const struct memblock_type *type, const void *built_in, int in_slab)
{
	unsigned long i;

	put32(type->cnt);
	put32(type->max);
	put64(type->total_size);
	put64(type->regions == built_in || in_slab ? in_slab : host_pa(type->regions));
	for (i = 0; i < type->cnt; i++) {
		const struct memblock_region *r = &type->regions[i];

		put64(r->base);
		put64(r->size);
		put32(r->flags);
		put32(memblock_get_region_node(r));
	}
}

static int read_all(int fd, void *to, size_t len)
{
	size_t got = 0;

	while (got < len) {
		ssize_t n = read(fd, (char *)to + got, len - got);

		if (n <= 0)
			return 0;
		got += n;
	}
	return 1;
}

static int write_all(int fd, const void *from, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = write(fd, (const char *)from + done, len - done);

		if (n <= 0)
			return 0;
		done += n;
	}
	return 1;
}

int memblock_serve(int in, int out)
{
	struct op *ops = NULL;
	volatile int dead = 0;
	uint32_t count;

	while (read_all(in, &count, sizeof(count))) {
		volatile uint32_t i;

		ops = realloc(ops, count * sizeof(*ops) + sizeof(*ops));
		if (!read_all(in, ops, count * sizeof(*ops)))
			return 1;
		reply_len = 0;
		put64(0);
		for (i = 0; i < count; i++) {
			size_t begin = reply_len;
			uint32_t len;
			int status;

			put32(0);
			nr_results = log_len = 0;
			if (ops[i].verb == RESET)
				dead = 0;
			status = dead ? 3 : setjmp(out_of_here);
			if (!status)
				run(&ops[i]);
			else
				dead = 1;
			put32(status);
			put32(nr_results);
			put(results, nr_results * sizeof(*results));
			put32(log_len);
			put(log_text, log_len);
			if (!status) {
				put32(memblock.bottom_up | system_has_some_mirror << 1 | memblock_can_resize << 2);
				put64(memblock.current_limit);
				put_type(&memblock.memory, memblock_memory_init_regions, memblock_memory_in_slab);
				put_type(&memblock.reserved, memblock_reserved_init_regions, memblock_reserved_in_slab);
			}
			len = reply_len - begin - sizeof(len);
			memcpy(reply + begin, &len, sizeof(len));
		}
		uint64_t total = reply_len - sizeof(total);

		memcpy(reply, &total, sizeof(total));
		if (!write_all(out, reply, reply_len))
			return 1;
	}
	return 0;
}

/* For the benchmark: seconds that a list of operations takes, without talking about each. */
double memblock_time(const struct op *ops, unsigned long count)
{
	struct timespec start, end;
	unsigned long i;

	if (setjmp(out_of_here))
		return -1;
	clock_gettime(CLOCK_MONOTONIC, &start);
	for (i = 0; i < count; i++) {
		nr_results = log_len = 0;
		run(&ops[i]);
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	return (end.tv_sec - start.tv_sec) + (end.tv_nsec - start.tv_nsec) / 1e9;
}
