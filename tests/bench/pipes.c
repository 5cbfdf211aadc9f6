/* SPDX-License-Identifier: Apache-2.0 */
/* pipes: how much goes through loopback, by the ways that bulk data could take, in one run and by
 * turns.
 *
 * usage: pipes [MIB [RUNS]]     a lane carries MIB (default 1024), each way is measured RUNS times
 * (default 5)
 *
 * Ways: "tcp" a bare socket, "nng" an nng PAIR over tcp, "pair" the PAIR of rpc/pair.h, "tls" a
 * bare OpenSSL socket with TLS 1.3, "pipe" a sealed pipe of rpc/pipe.h, which is that PAIR with
 * AES-256-GCM; each with 1, 2 and 4 lanes side by side. All write blocks of 512 KiB, which is what
 * a batch of pages is, from one buffer. One JSON object: medians of GiB a second, and of processor
 * seconds a GiB of both ends together. */
#include <arpa/inet.h>
#include <nng/nng.h>
#include <nng/protocol/pair0/pair.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/clock.h"
#include "rpc/endpoint.h"
#include "rpc/pair.h"
#include "rpc/pipe.h"

enum { BLOCK = 512 * 1024, LANES_MOST = 4, RUNS_MOST = 99, WAIT_MS = 60000, IN_FLIGHT = 4 };

static void must(bool is_good, const char *what)
{
	if (is_good)
		return;
	(void)fprintf(stderr, "pipes: %s\n", what);
	exit(1);
}

static void must_ok(status *st)
{
	must(st == NULL, st != NULL ? status_message(st) : "");
}

struct lane {
	int sockets[2]; /* that writes, that reads */
	SSL *tls[2];
	nng_socket nng[2];
	struct pipe *pipes[2];
	uint64_t blocks;
	uint8_t *block;
	const struct way *way;
};

struct way {
	const char *name;
	void (*open)(struct lane *lane);
	void (*write)(struct lane *lane);
	void (*read)(struct lane *lane);
	void (*close)(struct lane *lane);
};

/* --- a bare socket --- */

static void tcp_open(struct lane *lane)
{
	struct sockaddr_in address = {.sin_family = AF_INET,
				      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	must(bind(listener, (struct sockaddr *)&address, size) == 0 && listen(listener, 1) == 0 &&
		 getsockname(listener, (struct sockaddr *)&address, &size) == 0,
	     "cannot listen");
	lane->sockets[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(connect(lane->sockets[0], (struct sockaddr *)&address, size) == 0, "cannot connect");
	lane->sockets[1] = accept(listener, NULL, NULL);
	must(lane->sockets[1] >= 0, "cannot accept");
	(void)close(listener);
}

static void tcp_write(struct lane *lane)
{
	for (uint64_t i = 0; i < lane->blocks; i++)
		for (size_t done = 0; done < BLOCK;) {
			ssize_t sent = send(lane->sockets[0], lane->block + done, BLOCK - done, 0);
			must(sent > 0, "cannot write");
			done += (size_t)sent;
		}
}

static void tcp_read(struct lane *lane)
{
	uint8_t *block = malloc(BLOCK);

	for (uint64_t i = 0; i < lane->blocks; i++)
		must(recv(lane->sockets[1], block, BLOCK, MSG_WAITALL) == BLOCK, "cannot read");
	free(block);
}

static void tcp_close(struct lane *lane)
{
	(void)close(lane->sockets[0]);
	(void)close(lane->sockets[1]);
}

/* --- TLS over it --- */

/* Its own certificate, of an elliptic key; nobody checks it. */
static SSL_CTX *server_context(void)
{
	SSL_CTX *context = SSL_CTX_new(TLS_server_method());
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *certificate = X509_new();

	must(context != NULL && key != NULL && certificate != NULL, "OpenSSL");
	(void)X509_gmtime_adj(X509_getm_notBefore(certificate), -3600);
	(void)X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
	(void)X509_set_pubkey(certificate, key);
	must(X509_sign(certificate, key, EVP_sha256()) > 0 &&
		 SSL_CTX_use_certificate(context, certificate) == 1 &&
		 SSL_CTX_use_PrivateKey(context, key) == 1,
	     "no certificate");
	X509_free(certificate);
	EVP_PKEY_free(key);
	return context;
}

static void *tls_accept(void *self)
{
	must(SSL_accept(self) == 1, "no TLS");
	return NULL;
}

static void tls_open(struct lane *lane)
{
	SSL_CTX *server = server_context(), *client = SSL_CTX_new(TLS_client_method());
	pthread_t thread;

	tcp_open(lane);
	(void)SSL_CTX_set_min_proto_version(client, TLS1_3_VERSION);
	(void)SSL_CTX_set_ciphersuites(client, "TLS_AES_256_GCM_SHA384"); /* as pipes are sealed */
	lane->tls[0] = SSL_new(client);
	lane->tls[1] = SSL_new(server);
	must(SSL_set_fd(lane->tls[0], lane->sockets[0]) == 1 &&
		 SSL_set_fd(lane->tls[1], lane->sockets[1]) == 1,
	     "OpenSSL");
	must(pthread_create(&thread, NULL, tls_accept, lane->tls[1]) == 0, "no thread");
	must(SSL_connect(lane->tls[0]) == 1, "no TLS");
	(void)pthread_join(thread, NULL);
	SSL_CTX_free(server);
	SSL_CTX_free(client);
}

static void tls_write(struct lane *lane)
{
	for (uint64_t i = 0; i < lane->blocks; i++)
		must(SSL_write(lane->tls[0], lane->block, BLOCK) == BLOCK, "cannot write");
}

static void tls_read(struct lane *lane)
{
	uint8_t *block = malloc(BLOCK);

	for (uint64_t left = lane->blocks * BLOCK; left > 0;) {
		int got = SSL_read(lane->tls[1], block, BLOCK);
		must(got > 0, "cannot read");
		left -= (uint64_t)got;
	}
	free(block);
}

static void tls_close(struct lane *lane)
{
	SSL_free(lane->tls[0]);
	SSL_free(lane->tls[1]);
	tcp_close(lane);
}

/* --- nng's PAIR, in the clear --- */

static void nng_open_way(struct lane *lane)
{
	nng_listener listener;
	int port = 0;
	char url[64];

	must(nng_pair0_open(&lane->nng[1]) == 0 && nng_pair0_open(&lane->nng[0]) == 0 &&
		 nng_listen(lane->nng[1], "tcp://127.0.0.1:0", &listener, 0) == 0 &&
		 nng_listener_get_int(listener, NNG_OPT_TCP_BOUND_PORT, &port) == 0,
	     "cannot listen");
	(void)snprintf(url, sizeof(url), "tcp://127.0.0.1:%d", port);
	must(nng_dial(lane->nng[0], url, NULL, 0) == 0, "cannot connect");
}

static void nng_write_way(struct lane *lane)
{
	nng_aio *aios[IN_FLIGHT];

	for (unsigned i = 0; i < IN_FLIGHT; i++)
		must(nng_aio_alloc(&aios[i], NULL, NULL) == 0, "no memory");
	for (uint64_t i = 0; i < lane->blocks; i++) {
		nng_aio *aio = aios[i % IN_FLIGHT];
		nng_msg *msg;
		nng_aio_wait(aio);
		must(nng_aio_result(aio) == 0 && nng_msg_alloc(&msg, BLOCK) == 0, "cannot write");
		memcpy(nng_msg_body(msg), lane->block, BLOCK);
		nng_aio_set_msg(aio, msg);
		nng_send_aio(lane->nng[0], aio);
	}
	for (unsigned i = 0; i < IN_FLIGHT; i++) {
		nng_aio_wait(aios[i]);
		nng_aio_free(aios[i]);
	}
}

static void nng_read_way(struct lane *lane)
{
	for (uint64_t i = 0; i < lane->blocks; i++) {
		nng_msg *msg;
		must(nng_recvmsg(lane->nng[1], &msg, 0) == 0 && nng_msg_len(msg) == BLOCK,
		     "cannot read");
		nng_msg_free(msg);
	}
}

static void nng_close_way(struct lane *lane)
{
	(void)nng_socket_close(lane->nng[0]);
	(void)nng_socket_close(lane->nng[1]);
}

/* --- our PAIR, in the clear: from one buffer, as to a bare socket --- */

enum { ROOM = 16 };

static void pair_way_write(struct lane *lane)
{
	uint8_t *bytes = malloc(ROOM + BLOCK);
	size_t prefix = pair_prefix_bytes(false);
	double waited = 0;

	memcpy(bytes + ROOM, lane->block, BLOCK);
	for (uint64_t i = 0; i < lane->blocks; i++) {
		pair_put_prefix(false, bytes + ROOM, BLOCK);
		must(pair_write(lane->sockets[0], bytes + ROOM - prefix, prefix + BLOCK, WAIT_MS,
				&waited) == 0,
		     "cannot write");
	}
	free(bytes);
}

static void pair_way_read(struct lane *lane)
{
	struct pair pair = {.fd = lane->sockets[1]};

	for (uint64_t i = 0; i < lane->blocks; i++) {
		uint8_t *message = NULL;
		size_t size = 0;
		must(pair_receive(&pair, BLOCK, WAIT_MS, &message, &size) == 0 && size == BLOCK,
		     "cannot read");
		free(message);
	}
}

/* --- a sealed pipe --- */

static void *pipe_takes(void *self)
{
	must_ok(pipe_accept(self, WAIT_MS));
	return NULL;
}

static void pipe_open(struct lane *lane)
{
	const struct pipe_place place = {.host = "127.0.0.1",
					 .port_low = 21000,
					 .port_high = 29999};
	Haul__V1__PipeAddress *address = NULL;
	pthread_t thread;

	must_ok(pipe_listen(&place, &lane->pipes[1], &address));
	must(pthread_create(&thread, NULL, pipe_takes, lane->pipes[1]) == 0, "no thread");
	must_ok(pipe_dial(address, WAIT_MS, &lane->pipes[0]));
	(void)pthread_join(thread, NULL);
	haul__v1__pipe_address__free_unpacked(address, NULL);
}

static void pipe_write(struct lane *lane)
{
	for (uint64_t i = 0; i < lane->blocks; i++) {
		struct pipe_out out;
		must_ok(pipe_out_new(HAUL__V1__FRAME_KIND__FRAME_BATCH, BLOCK, &out));
		memcpy(out.body, lane->block, BLOCK);
		must_ok(pipe_send_frame(lane->pipes[0], &out, BLOCK, WAIT_MS));
	}
	must_ok(pipe_send_end(lane->pipes[0], NULL, WAIT_MS));
}

static void pipe_read(struct lane *lane)
{
	for (uint64_t i = 0; i < lane->blocks; i++) {
		struct pipe_in in = {0};
		must_ok(pipe_receive(lane->pipes[1], WAIT_MS, &in));
		must(in.size == BLOCK, "cannot read");
		pipe_in_drop(&in);
	}
}

static void pipe_close(struct lane *lane)
{
	pipe_free(lane->pipes[0]);
	pipe_free(lane->pipes[1]);
}

/* --- measuring --- */

static const struct way ways[] = {
    {"tcp", tcp_open, tcp_write, tcp_read, tcp_close},
    {"nng", nng_open_way, nng_write_way, nng_read_way, nng_close_way},
    {"pair", tcp_open, pair_way_write, pair_way_read, tcp_close},
    {"tls", tls_open, tls_write, tls_read, tls_close},
    {"pipe", pipe_open, pipe_write, pipe_read, pipe_close},
};
enum { WAYS = sizeof(ways) / sizeof(ways[0]), WIDTHS = 3 };
static const unsigned widths[WIDTHS] = {1, 2, LANES_MOST};

struct measured {
	double gib_per_s, cpu_s_per_gib;
};

static double cpu_s(void)
{
	struct rusage usage;

	(void)getrusage(RUSAGE_SELF, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void *run_writer(void *self)
{
	struct lane *lane = self;

	lane->way->write(lane);
	return NULL;
}

static void *run_reader(void *self)
{
	struct lane *lane = self;

	lane->way->read(lane);
	return NULL;
}

static struct measured measure(const struct way *way, unsigned width, uint64_t blocks,
			       uint8_t *block)
{
	struct lane lanes[LANES_MOST] = {0};
	pthread_t threads[2 * LANES_MOST];

	for (unsigned i = 0; i < width; i++) {
		lanes[i].blocks = blocks / width;
		lanes[i].block = block;
		lanes[i].way = way;
		way->open(&lanes[i]);
	}
	double began = clock_monotonic_fine_ms(), used = cpu_s();
	for (unsigned i = 0; i < width; i++)
		must(pthread_create(&threads[2 * i], NULL, run_reader, &lanes[i]) == 0 &&
			 pthread_create(&threads[2 * i + 1], NULL, run_writer, &lanes[i]) == 0,
		     "no thread");
	for (unsigned i = 0; i < 2 * width; i++)
		(void)pthread_join(threads[i], NULL);
	double took_s = (clock_monotonic_fine_ms() - began) / 1000;
	uint64_t moved = blocks / width * width;
	double gib = (double)moved * BLOCK / (1 << 30);
	struct measured result = {gib / took_s, (cpu_s() - used) / gib};
	for (unsigned i = 0; i < width; i++)
		way->close(&lanes[i]);
	return result;
}

static int compare(const void *left, const void *right)
{
	double a = *(const double *)left, b = *(const double *)right;

	return (a > b) - (a < b);
}

static double median(double *values, unsigned count)
{
	qsort(values, count, sizeof(*values), compare);
	return values[count / 2];
}

static void print(struct measured all[WAYS][WIDTHS][RUNS_MOST], unsigned runs, uint64_t mib)
{
	(void)printf("{\"mib\": %llu, \"runs\": %u, \"blockBytes\": %d", (unsigned long long)mib,
		     runs, BLOCK);
	for (unsigned way = 0; way < WAYS; way++) {
		(void)printf(", \"%s\": {", ways[way].name);
		for (unsigned width = 0; width < WIDTHS; width++) {
			double rates[RUNS_MOST], costs[RUNS_MOST];
			for (unsigned run = 0; run < runs; run++) {
				rates[run] = all[way][width][run].gib_per_s;
				costs[run] = all[way][width][run].cpu_s_per_gib;
			}
			(void)printf("%s\"%u\": {\"gibPerS\": %.3f, \"cpuSPerGib\": %.3f}",
				     width == 0 ? "" : ", ", widths[width], median(rates, runs),
				     median(costs, runs));
		}
		(void)printf("}");
	}
	(void)printf("}\n");
}

int main(int argc, char **argv)
{
	static struct measured all[WAYS][WIDTHS][RUNS_MOST];
	uint64_t mib = argc > 1 ? strtoull(argv[1], NULL, 10) : 1024;
	unsigned runs = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 5;
	uint8_t *block = malloc(BLOCK);

	must(block != NULL && mib > 0 && runs > 0 && runs <= RUNS_MOST,
	     "usage: pipes [MIB [RUNS]]");
	for (size_t i = 0; i < BLOCK; i++)
		block[i] = (uint8_t)(i * 2654435761U >> 13);
	must_ok(rpc_start());
	pipe_keep_memory();
	for (unsigned run = 0; run < runs; run++)
		for (unsigned width = 0; width < WIDTHS; width++)
			for (unsigned way = 0; way < WAYS; way++)
				all[way][width][run] = measure(&ways[way], widths[width],
							       mib * (1024 * 1024 / BLOCK), block);
	print(all, runs, mib);
	free(block);
	return 0;
}
