/* SPDX-License-Identifier: Apache-2.0 */
/* flip: preloaded into hauld, it turns one bit of what a bulk pipe carries.
 *
 * HAUL_FLIP names a file that says which; it is removed when that has happened. Its one line is:
 * - "plain N": of the Nth batch of pages from now on, before it is sealed: what a broken memory or
 * a bug would do. Only the batch's own digest can tell.
 * - "sealed N": the same after it was sealed: what the wire could do.
 *
 * hauld is what it ships as: only OpenSSL's EVP_CipherUpdate lies. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINE = 64, BATCH_LEAST = 65536 /* TLS' records are shorter */ };

typedef int update_function(EVP_CIPHER_CTX *, unsigned char *, int *, const unsigned char *, int);

static bool is_on;
static update_function *real_update;
static atomic_uint seen;

/* In hauld only, and not in what it starts. */
__attribute__((constructor)) static void choose_process(void)
{
	is_on = strcmp(program_invocation_short_name, "hauld") == 0 && getenv("HAUL_FLIP") != NULL;
	if (is_on)
		(void)unsetenv("LD_PRELOAD");
	/* A pointer to an object is what dlsym has to give. */
	void *found = dlsym(RTLD_NEXT, "EVP_CipherUpdate");
	memcpy((void *)&real_update, (void *)&found, sizeof(real_update));
}

/* Is this batch the one, and which kind is asked for? */
static bool is_chosen(char kind[LINE])
{
	char line[LINE] = "";
	unsigned wanted = 0;
	const char *path = getenv("HAUL_FLIP");
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return false;
	ssize_t got = read(fd, line, sizeof(line) - 1);
	(void)close(fd);
	if (got <= 0 || sscanf(line, "%63s %u", kind, &wanted) != 2)
		return false;
	if (atomic_fetch_add(&seen, 1) + 1 < wanted || unlink(path) != 0)
		return false;
	atomic_store(&seen, 0);
	return true;
}

int EVP_CipherUpdate(EVP_CIPHER_CTX *context, unsigned char *out, int *out_size,
		     const unsigned char *in, int in_size)
{
	char kind[LINE] = "";

	/* In place, as pipes seal. */
	if (!is_on || in_size < BATCH_LEAST || out != in ||
	    !EVP_CIPHER_CTX_is_encrypting(context) || !is_chosen(kind))
		return real_update(context, out, out_size, in, in_size);
	if (strcmp(kind, "plain") == 0)
		out[in_size / 2] ^= 1;
	int done = real_update(context, out, out_size, in, in_size);
	if (strcmp(kind, "sealed") == 0)
		out[in_size / 2] ^= 1;
	return done;
}
