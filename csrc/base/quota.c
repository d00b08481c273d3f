#define _POSIX_C_SOURCE 200809L /* strtok_r */
#include "base/quota.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_SIZE 4096
#define LINE_SIZE 8192

static const char *root_prefix(void)
{
    const char *prefix = getenv("LUCID_C_CGROUP_ROOT");
    return prefix ? prefix : "";
}

/* The next line without its newline; longer ones are cut, their rest is skipped. */
static bool read_line(FILE *file, char line[LINE_SIZE])
{
    if (!fgets(line, LINE_SIZE, file))
        return false;
    size_t n = strlen(line);
    if (n > 0 && line[n - 1] == '\n') {
        line[n - 1] = '\0';
        return true;
    }
    for (int c = fgetc(file); c != EOF && c != '\n';)
        c = fgetc(file);
    return true;
}

static FILE *open_in(const char *folder, const char *name)
{
    char path[PATH_SIZE + 64];
    int n = snprintf(path, sizeof path, "%s/%s", folder, name);
    return n > 0 && (size_t)n < sizeof path ? fopen(path, "r") : NULL;
}

static bool has_word(const char *list, const char *word)
{
    size_t n = strlen(word);
    for (const char *at = list; at; at = strchr(at, ','), at = at ? at + 1 : NULL)
        if (strncmp(at, word, n) == 0 && (at[n] == ',' || at[n] == '\0'))
            return true;
    return false;
}

static int smaller(int best, long long quota, long long period)
{
    if (quota <= 0 || period <= 0)
        return best;
    long long cpus = (quota - 1) / period + 1;
    if (cpus > INT32_MAX)
        return best;
    return best == 0 || cpus < best ? (int)cpus : best;
}

/* The quota of one group's folder. v2: cpu.max is "max 100000" or "150000 100000". */
static int folder_quota(const char *folder, bool v2, int best)
{
    char line[LINE_SIZE];
    long long quota = -1, period = -1;
    if (v2) {
        FILE *file = open_in(folder, "cpu.max");
        if (file) {
            if (read_line(file, line) && sscanf(line, "%lld %lld", &quota, &period) != 2)
                quota = -1;
            fclose(file);
        }
        return smaller(best, quota, period);
    }
    const char *name[2] = {"cpu.cfs_quota_us", "cpu.cfs_period_us"};
    long long *value[2] = {&quota, &period};
    for (int i = 0; i < 2; i++) {
        FILE *file = open_in(folder, name[i]);
        if (file) {
            if (!read_line(file, line) || sscanf(line, "%lld", value[i]) != 1)
                *value[i] = -1;
            fclose(file);
        }
    }
    return smaller(best, quota, period);
}

/* From the group at mount + path up to the mount point itself: every level limits. */
static int walk_up(const char *mount, const char *path, bool v2, int best)
{
    char folder[PATH_SIZE];
    int n = snprintf(folder, sizeof folder, "%s%s", mount, path);
    if (n < 0 || (size_t)n >= sizeof folder)
        return best;
    size_t end = strlen(mount);
    for (;;) {
        size_t length = strlen(folder);
        while (length > end && folder[length - 1] == '/')
            folder[--length] = '\0';
        best = folder_quota(folder, v2, best);
        char *slash = strrchr(folder, '/');
        if (length <= end || !slash || slash < folder + end)
            return best;
        *slash = '\0';
    }
}

/* This process's group for the cpu controller: lines are "4:cpu,cpuacct:/path" (v1) or "0::/path"
 * (v2). */
static bool own_group(bool v2, char path[PATH_SIZE])
{
    char line[LINE_SIZE];
    bool found = false;
    FILE *file = open_in(root_prefix(), "proc/self/cgroup");
    if (!file)
        return false;
    while (!found && read_line(file, line)) {
        char *controllers = strchr(line, ':'),
             *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group)
            continue;
        *group++ = '\0';
        controllers++;
        found = v2 ? strncmp(line, "0:", 2) == 0 && !*controllers : has_word(controllers, "cpu");
        found = found && strlen(group) < PATH_SIZE;
        if (found)
            strcpy(path, group);
    }
    fclose(file);
    return found;
}

/* mountinfo writes space, tab, newline and backslash as \ooo. */
static void unescape(char *text)
{
    char *to = text;
    for (char *from = text; *from; to++) {
        if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] && from[3]) {
            *to = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + (from[3] - '0'));
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = '\0';
}

/* One line of mountinfo: "36 35 0:31 <root> <mount point> <options> [...] - <type> <source> <super
 * options>". */
static bool cgroup_mount(char *line, bool v2, char **root, char **mount)
{
    char *rest = NULL, *tail = strstr(line, " - "), *tail_rest = NULL;
    if (!tail)
        return false;
    *tail = '\0';
    char *type = strtok_r(tail + 3, " ", &tail_rest);
    strtok_r(NULL, " ", &tail_rest); /* the source */
    char *options = strtok_r(NULL, " ", &tail_rest);
    if (!type || strcmp(type, v2 ? "cgroup2" : "cgroup") != 0)
        return false;
    if (!v2 && !(options && has_word(options, "cpu")))
        return false;
    strtok_r(line, " ", &rest);
    strtok_r(NULL, " ", &rest);
    strtok_r(NULL, " ", &rest);
    *root = strtok_r(NULL, " ", &rest);
    *mount = strtok_r(NULL, " ", &rest);
    if (!*root || !*mount)
        return false;
    unescape(*root);
    unescape(*mount);
    return true;
}

/* The part of the group's path below the root of a mount: inside a container the mount often starts
 * at the container's own group while the path counts from the host's. Outside of it: the mount
 * point must do. */
static const char *below(const char *root, const char *group)
{
    size_t n = strlen(root);
    while (n > 0 && root[n - 1] == '/')
        n--;
    if (strncmp(group, root, n) == 0 && (group[n] == '/' || group[n] == '\0') &&
        !strstr(group, "/.."))
        return group + n;
    return "";
}

static int version_quota(bool v2, int best)
{
    char group[PATH_SIZE], line[LINE_SIZE], folder[PATH_SIZE];
    if (!own_group(v2, group))
        return best;
    FILE *file = open_in(root_prefix(), "proc/self/mountinfo");
    if (!file)
        return best;
    while (read_line(file, line)) {
        char *root, *mount;
        if (!cgroup_mount(line, v2, &root, &mount))
            continue;
        int n = snprintf(folder, sizeof folder, "%s%s", root_prefix(), mount);
        if (n > 0 && (size_t)n < sizeof folder)
            best = walk_up(folder, below(root, group), v2, best);
    }
    fclose(file);
    return best;
}

int lc_quota_get(void)
{
    return version_quota(true, version_quota(false, 0));
}
