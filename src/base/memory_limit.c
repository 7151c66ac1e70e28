/* SPDX-License-Identifier: Apache-2.0 */
/* How much memory a process may have: the machine's, or less where a batch system or a
 * container has put it into a control group with a limit.
 *
 * Every group on the way up may have a limit, and the least one counts.  Where the
 * path that the kernel tells is not visible (a container that sees its own group as the
 * root), the groups that are visible still count, since the walk ends at the root. */
#include "kdhpc/base/mem.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 1024 };

/* *LEAST = the number in ROOT/sys/fs/cgroup HIERARCHY GROUP/NAME if that is less. */
static void take_limit(const char *root, const char *hierarchy, const char *group,
                       const char *name, int64_t *least)
{
    char path[PATH_MAX];
    uint64_t bytes;
    FILE *f;
    int n = snprintf(path, sizeof path, "%s/sys/fs/cgroup%s%s/%s", root, hierarchy,
                     group, name);

    if (n < 0 || (size_t)n >= sizeof path || !(f = fopen(path, "r")))
        return;
    if (fscanf(f, "%" SCNu64, &bytes) == 1 && bytes < (uint64_t)*least)
        *least = (int64_t)bytes; /* "max" is no number; no limit is a huge one */
    fclose(f);
}

/* The limits of GROUP and of all groups above it. */
static void walk_up(const char *root, const char *hierarchy, char *group,
                    const char *name, int64_t *least)
{
    for (;;) {
        char *slash = strrchr(group, '/');

        if (slash && !slash[1]) /* "/" */
            *slash = '\0';
        take_limit(root, hierarchy, group, name, least);
        slash = strrchr(group, '/');
        if (!slash)
            return;
        *slash = '\0';
    }
}

/* A line of /proc/self/cgroup: "0::/group", or "5:cpu,memory:/group" of version 1. */
static void read_line(const char *root, char *line, int64_t *least)
{
    char *controllers = strchr(line, ':'), *group;

    line[strcspn(line, "\n")] = '\0';
    if (!controllers || !(group = strchr(controllers + 1, ':')))
        return;
    *controllers++ = '\0';
    *group++ = '\0';
    if (!*controllers)
        walk_up(root, "", group, "memory.max", least);
    else if (strstr(controllers, "memory"))
        walk_up(root, "/memory", group, "memory.limit_in_bytes", least);
}

int64_t kd_memory_limit_bytes(const char *root)
{
    int64_t least = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
    char path[PATH_MAX], line[LINE_MAX_BYTES];
    int n = snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *f;

    if (n < 0 || (size_t)n >= sizeof path || !(f = fopen(path, "r")))
        return least;
    while (fgets(line, sizeof line, f))
        read_line(root, line, &least);
    fclose(f);
    return least;
}
