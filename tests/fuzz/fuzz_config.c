/* SPDX-License-Identifier: Apache-2.0 */
/* A configuration file of hauld. */
#include "cmd/hauld/config.h"

#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char path[128], flag[] = "--config";
	char *argv[] = {flag, path, NULL};
	struct config config = {0};

	scoped(status) status *made = files_make_directory(fuzz_directory());
	must(made == NULL);
	(void)snprintf(path, sizeof(path), "%s/hauld.json", fuzz_directory());
	(void)unlink(path);
	scoped(status) status *written = files_write(path, data, size);
	must(written == NULL);
	scoped(status) status *st = config_read(2, argv, &config);
	if (st == NULL) {
		must(config.port_low <= config.port_high);
		must(config.state_dir[0] == '/');
		config_free(&config);
	}
	(void)unlink(path);
	return 0;
}
