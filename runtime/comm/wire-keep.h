/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/comm/wire-keep.h - the messages between a process that keeps weights on a GPU (moe-run --keep) and
 * one that attaches to it (--attach), as bytes.
 *
 * Each is one packet of a local socket (local.h), whose numbers are little-endian:
 *
 *     "MOEKEEPS", version uint32, type uint32, and then
 *     OFFER   n uint32, and n terms: the lengths of name and value, a byte each, and the two texts
 *     TAKE    first uint64, n uint32: descriptors of the units from `first` on are asked for
 *     GIVE    the same numbers, in a packet that brings the n descriptors
 *     FAILED  a text, to the end of the packet: why the keeper ends the connection
 *
 * The keeper speaks first: it offers what it has, and whoever attaches compares that with what it needs, and
 * then takes one batch of units after the other.
 *
 * Nothing here touches a socket.  Safe from any thread. */
#ifndef MOE_RUNTIME_COMM_WIRE_KEEP_H
#define MOE_RUNTIME_COMM_WIRE_KEEP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum moe_keep_type { MOE_KEEP_OFFER = 1, MOE_KEEP_TAKE, MOE_KEEP_GIVE, MOE_KEEP_FAILED };
/* UNITS: at most so many in a TAKE or GIVE.  PACKET: no message is longer.  NAME, VALUE and TEXT count the
 * NUL. */
enum {
    MOE_KEEP_VERSION = 1,
    MOE_KEEP_UNITS = 64,
    MOE_KEEP_TERMS = 8,
    MOE_KEEP_NAME = 16,
    MOE_KEEP_VALUE = 64,
    MOE_KEEP_TEXT = 512,
    MOE_KEEP_PACKET = 1024
};

/* What both sides must have in common, as texts that a person can read. */
struct moe_keep_terms {
    uint32_t n;
    struct { char name[MOE_KEEP_NAME], value[MOE_KEEP_VALUE]; } item[MOE_KEEP_TERMS];
};
/* Adds a term; the program stops where there are MOE_KEEP_TERMS already or a text is too long or empty. */
void moe_keep_add(struct moe_keep_terms *t, const char *name, const char *value);
/* The index of the first term in which the two differ, by name or value or because one has no more; -1: they
 * do not differ. */
int moe_keep_difference(const struct moe_keep_terms *a, const struct moe_keep_terms *b);

/* A message.  terms: of OFFER; first and n: of TAKE and GIVE; text: of FAILED. */
struct moe_keep_message {
    uint32_t version, type;
    struct moe_keep_terms terms;
    uint64_t first;
    uint32_t n;
    char text[MOE_KEEP_TEXT];
};

/* Writes a message; returns its bytes. */
size_t moe_keep_put(unsigned char out[MOE_KEEP_PACKET], const struct moe_keep_message *m);
/* Reads a message; texts from it are fit for a terminal.  False for bytes that are none: then *m has no
 * meaning.  Of a message of another version only `version` is read. */
bool moe_keep_get(const void *p, size_t bytes, struct moe_keep_message *m);

#endif
