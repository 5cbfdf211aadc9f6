/* SPDX-License-Identifier: Apache-2.0 */
/* fake-victim: a process that has the pages which fake-criu makes up: the fake writes them there,
 * so that an engine that looks for itself finds what it was told. */
#include <sys/mman.h>
#include <unistd.h>

#include "tests/fake/fake.h"

int main(void)
{
	void *at = (void *)FAKE_ADDRESS;

	if (mmap(at, (size_t)FAKE_PAGES * FAKE_PAGE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_POPULATE, -1, 0) != at)
		return 1;
	for (;;)
		(void)pause();
}
