#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define MESSAGE_SIZE 1024

static _Thread_local char message[MESSAGE_SIZE];

/* A message that is cut must not end inside a UTF-8 character: hosts decode it. */
static void cut_at_character(char *text)
{
    size_t n = strlen(text), start = n;
    while (start > 0 && ((unsigned char)text[start - 1] & 0xc0) == 0x80)
        start--;
    if (start == 0)
        return;
    unsigned char lead = (unsigned char)text[start - 1];
    size_t want = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : lead >= 0xc0 ? 1 : 0;
    if (n - start < want)
        text[start - 1] = '\0';
}

/* The arguments may point into the message itself, so both functions format elsewhere first. */
static void format(char out[MESSAGE_SIZE], const char *fmt, va_list args)
{
    int n = vsnprintf(out, MESSAGE_SIZE, fmt, args);
    if (n < 0)
        strcpy(out, "(a message that could not be formatted)");
    else if (n >= MESSAGE_SIZE)
        cut_at_character(out);
}

lc_status lc_fail(lc_status code, const char *fmt, ...)
{
    char text[MESSAGE_SIZE];
    va_list args;
    va_start(args, fmt);
    format(text, fmt, args);
    va_end(args);
    memcpy(message, text, strlen(text) + 1);
    return code;
}

lc_status lc_fail_in(lc_status code, const char *fmt, ...)
{
    char text[MESSAGE_SIZE], old[MESSAGE_SIZE];
    va_list args;
    va_start(args, fmt);
    format(text, fmt, args);
    va_end(args);
    memcpy(old, message, sizeof old);
    size_t used = strlen(text);
    int n = snprintf(text + used, sizeof text - used, ": %s", old);
    if (n < 0 || (size_t)n >= sizeof text - used)
        cut_at_character(text);
    memcpy(message, text, strlen(text) + 1);
    return code;
}

const char *lc_error_message(void)
{
    return message;
}
