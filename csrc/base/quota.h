/* The CPU quota that containers and service managers set through Linux control groups. */
#ifndef LC_BASE_QUOTA_H
#define LC_BASE_QUOTA_H

/* The smallest quota of this process's group and the groups above it, v1 and v2, in processors
 * rounded up; 0 where there is none. Tests: LUCID_C_CGROUP_ROOT=<folder> is put before
 * /proc/self/... and before the mount points. */
int lc_quota_get(void);

#endif
