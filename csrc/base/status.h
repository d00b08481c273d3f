/* Status codes and the message that goes with them.
 *
 * Every function that can fail returns an lc_status and writes its results through pointers. The
 * message of the last failure is kept per thread; it names the argument, what was given and what
 * was expected. */
#ifndef LC_BASE_STATUS_H
#define LC_BASE_STATUS_H

typedef enum lc_status {
    LC_OK = 0,
    LC_ERR_VALUE,       /* ValueError: a size, a range, a combination */
    LC_ERR_TYPE,        /* TypeError: a dtype, a kind of object */
    LC_ERR_INDEX,       /* IndexError: an axis or an element out of range */
    LC_ERR_KEY,         /* KeyError: no parameter, child or model of that name */
    LC_ERR_MEMORY,      /* MemoryError */
    LC_ERR_RUNTIME,     /* RuntimeError: a state that does not allow the call */
    LC_ERR_INTERRUPTED, /* the stop check asked for a stop (Ctrl-C) */
    LC_ERR_HOST         /* the host language has raised its own error already */
} lc_status;

#if defined(__GNUC__)
#define LC_PRINTF(fmt_index, args_index) __attribute__((format(printf, fmt_index, args_index)))
#else
#define LC_PRINTF(fmt_index, args_index)
#endif

/* Stores the formatted message for this thread and returns `code`. */
lc_status lc_fail(lc_status code, const char *fmt, ...) LC_PRINTF(2, 3);

/* Puts "<context>: " before the stored message, for callers that know more. Returns `code`. */
lc_status lc_fail_in(lc_status code, const char *fmt, ...) LC_PRINTF(2, 3);

/* The message of this thread's last failure; valid until its next one. Never NULL. */
const char *lc_error_message(void);

/* Evaluates an lc_status expression and returns it from the calling function unless it is LC_OK. */
#define LC_TRY(expr)                                                                               \
    do {                                                                                           \
        lc_status lc_try_status_ = (expr);                                                         \
        if (lc_try_status_ != LC_OK)                                                               \
            return lc_try_status_;                                                                 \
    } while (0)

/* The same, with a jump to the exit label; the function declares `lc_status status = LC_OK;`. */
#define LC_TRY_GOTO(expr, label)                                                                   \
    do {                                                                                           \
        status = (expr);                                                                           \
        if (status != LC_OK)                                                                       \
            goto label;                                                                            \
    } while (0)

#endif
