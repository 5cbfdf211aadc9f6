/* SPDX-License-Identifier: Apache-2.0 */
/* Names and addresses of hosts, in time. */
#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <string.h>

#include "rpc/resolve.h"

enum { PLENTY_MS = 60000 };

static void addresses_need_nobody(void **state)
{
	struct addrinfo *list = NULL;
	(void)state;
	assert_ok(resolve_host("127.0.0.2", 7800, 0, &list));
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)list->ai_addr;
	assert_int_equal(v4->sin_family, AF_INET);
	assert_int_equal(ntohs(v4->sin_port), 7800);
	assert_int_equal(ntohl(v4->sin_addr.s_addr), 0x7f000002);
	freeaddrinfo(list);
	assert_ok(resolve_host("::1", 1, 0, &list));
	assert_int_equal(list->ai_family, AF_INET6);
	freeaddrinfo(list);
}

static void names_are_looked_up(void **state)
{
	struct addrinfo *list = NULL;
	(void)state;
	assert_ok(resolve_host("localhost", 7800, PLENTY_MS, &list));
	assert_non_null(list);
	freeaddrinfo(list);
}

static void a_name_that_nobody_has_is_unavailable(void **state)
{
	struct addrinfo *list = NULL;
	(void)state;
	assert_code(resolve_host("not a host", 7800, PLENTY_MS, &list), STATUS_UNAVAILABLE);
	assert_null(list);
}

static void it_takes_no_longer_than_it_may(void **state)
{
	struct addrinfo *list = NULL;
	(void)state;
	/* Whether it is known by then or not: what is found later is freed by who found it. */
	for (int i = 0; i < 20; i++) {
		status *st = resolve_host("localhost", 7800, 0, &list);
		if (st == NULL)
			freeaddrinfo(list);
		else
			assert_code(st, STATUS_DEADLINE_EXCEEDED);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(addresses_need_nobody),
	    cmocka_unit_test(names_are_looked_up),
	    cmocka_unit_test(a_name_that_nobody_has_is_unavailable),
	    cmocka_unit_test(it_takes_no_longer_than_it_may),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
