/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <string.h>

#include "rpc/peer_address.h"

static struct peer_address of(const char *ip, uint16_t port)
{
	nng_sockaddr address = {.s_family = NNG_AF_INET};
	if (inet_pton(AF_INET, ip, &address.s_in.sa_addr) == 1) {
		address.s_in.sa_port = htons(port);
		return peer_address_of(&address);
	}
	address.s_family = NNG_AF_INET6;
	assert_int_equal(inet_pton(AF_INET6, ip, address.s_in6.sa_addr), 1);
	address.s_in6.sa_port = htons(port);
	return peer_address_of(&address);
}

static void addresses_are_told_as_people_write_them(void **state)
{
	const nng_sockaddr ipc = {.s_family = NNG_AF_IPC};
	const nng_sockaddr none = {.s_family = NNG_AF_UNSPEC};
	(void)state;
	assert_string_equal(of("10.0.0.1", 4711).text, "10.0.0.1:4711");
	assert_string_equal(of("fe80::1", 1).text, "[fe80::1]:1");
	assert_string_equal(peer_address_of(&ipc).text, "a local process");
	assert_string_equal(peer_address_of(&none).text, "unknown");
}

static void a_host_is_an_ipv4_address_or_a_64_of_ipv6(void **state)
{
	static const struct {
		const char *a, *b;
		bool is_same;
	} cases[] = {
	    {"10.0.0.1", "10.0.0.1", true},
	    {"10.0.0.1", "10.0.0.2", false},
	    {"2001:db8:1:2::1", "2001:db8:1:2:ffff::9", true},
	    {"2001:db8:1:2::1", "2001:db8:1:3::1", false},
	    {"::1", "::1", true},
	    {"::1", "10.0.0.1", false},
	    {"::ffff:10.0.0.1", "10.0.0.1", true},
	    {"::ffff:10.0.0.1", "::ffff:10.0.0.2", false},
	};
	const nng_sockaddr ipc = {.s_family = NNG_AF_IPC};
	const struct peer_address local = peer_address_of(&ipc);
	(void)state;
	for (size_t i = 0; i < array_len(cases); i++) {
		const struct peer_address a = of(cases[i].a, 1);
		const struct peer_address b = of(cases[i].b, 2);
		if (peer_address_is_same_host(&a, &b) != cases[i].is_same)
			fail_msg("%s and %s", cases[i].a, cases[i].b);
	}
	assert_false(peer_address_is_same_host(&local, &local));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(addresses_are_told_as_people_write_them),
	    cmocka_unit_test(a_host_is_an_ipv4_address_or_a_64_of_ipv6),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
