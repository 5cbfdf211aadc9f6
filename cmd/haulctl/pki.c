/* SPDX-License-Identifier: Apache-2.0 */
/* haulctl pki: certificates for people who have no authority of their own. */
#include "cmd/haulctl/certificates.h"
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "cmd/haulctl/ctl.h"
#include "cmd/haulctl/render.h"
#include "cmd/haulctl/render_json.h"
#include "cmd/haulctl/revocation.h"

static void tell(const struct ctl *ctl, const char *certificate, const char *key)
{
	if (ctl->is_json) {
		cJSON *json = cJSON_CreateObject();
		(void)cJSON_AddStringToObject(json, "cert", certificate);
		(void)cJSON_AddStringToObject(json, "key", key);
		json_print(stdout, json, false);
		return;
	}
	(void)printf("%s\n%s\n", certificate, key);
}

static status *init(struct ctl *ctl, int *ret_exit)
{
	struct pki_files files;
	status *st = pki_init(ctl->words.words[0], &files);

	(void)ret_exit;
	if (st == NULL)
		tell(ctl, files.certificate, files.key);
	return st;
}

static status *issue(struct ctl *ctl, int *ret_exit)
{
	struct pki_files files;
	const struct pki_request request = {
	    .directory = ctl->words.words[0],
	    .name = ctl->words.words[1],
	    .sans = ctl->sans.items,
	    .san_count = ctl->sans.count,
	    .days = ctl->days != 0 ? ctl->days : PKI_LEAF_DAYS,
	};
	status *st = pki_issue(&request, &files);

	(void)ret_exit;
	if (st == NULL)
		tell(ctl, files.certificate, files.key);
	return st;
}

static status *write_list(struct ctl *ctl, const char *name)
{
	struct pki_revoked revoked;
	const struct pki_revocation request = {
	    .directory = ctl->words.words[0],
	    .name = name,
	    .days = ctl->days != 0 ? ctl->days : PKI_CRL_DAYS,
	};
	status *st = pki_revoke(&request, &revoked);

	if (st != NULL)
		return st;
	if (!ctl->is_json) {
		(void)printf("%s\n", revoked.crl);
		return NULL;
	}
	cJSON *json = cJSON_CreateObject();
	(void)cJSON_AddStringToObject(json, "crl", revoked.crl);
	(void)cJSON_AddNumberToObject(json, "revoked", revoked.count);
	if (revoked.serial[0] != '\0')
		(void)cJSON_AddStringToObject(json, "serial", revoked.serial);
	json_print(stdout, json, false);
	return NULL;
}

static status *revoke_one(struct ctl *ctl, int *ret_exit)
{
	(void)ret_exit;
	return write_list(ctl, ctl->words.words[1]);
}

static status *renew_list(struct ctl *ctl, int *ret_exit)
{
	(void)ret_exit;
	return write_list(ctl, NULL);
}

static const char *state_of(const struct pki_listed *entry)
{
	bool is_over =
	    entry->expire_unix_ms != 0 && entry->expire_unix_ms / 1000 <= (int64_t)time(NULL);

	return entry->is_revoked ? "revoked" : is_over ? "expired" : "valid";
}

static void print_listed(const struct pki_list *certificates)
{
	char moment[RENDER_NUMBER];
	size_t width = strlen("NAME");

	for (size_t i = 0; i < certificates->count; i++)
		if (strlen(certificates->entries[i].name) > width)
			width = strlen(certificates->entries[i].name);
	(void)printf("%-*s  %-19s  %-7s  %s\n", (int)width, "NAME", "EXPIRES", "STATE", "SERIAL");
	for (size_t i = 0; i < certificates->count; i++) {
		const struct pki_listed *entry = &certificates->entries[i];
		format_moment(moment, entry->expire_unix_ms);
		(void)printf("%-*s  %-19s  %-7s  %s\n", (int)width,
			     entry->name[0] != '\0' ? entry->name : "-", moment, state_of(entry),
			     entry->serial);
	}
}

static status *list_all(struct ctl *ctl, int *ret_exit)
{
	scoped(pki_list) struct pki_list certificates = {0};
	status *st = pki_list(ctl->words.words[0], &certificates);

	(void)ret_exit;
	if (st != NULL)
		return st;
	if (!ctl->is_json) {
		print_listed(&certificates);
		return NULL;
	}
	cJSON *json = cJSON_CreateObject();
	cJSON *entries = cJSON_AddArrayToObject(json, "certificates");
	for (size_t i = 0; i < certificates.count; i++) {
		const struct pki_listed *from = &certificates.entries[i];
		cJSON *entry = cJSON_CreateObject();
		(void)cJSON_AddStringToObject(entry, "name", from->name);
		(void)cJSON_AddStringToObject(entry, "serial", from->serial);
		(void)cJSON_AddStringToObject(entry, "state", state_of(from));
		(void)cJSON_AddNumberToObject(entry, "expiresUnixMs", (double)from->expire_unix_ms);
		(void)cJSON_AddItemToArray(entries, entry);
	}
	json_print(stdout, json, false);
	return NULL;
}

static const struct flag crl_flags[] = {
    {"--days", "N", FLAG_NUMBER, CTL_FLAG(days),
     "days until the list ends; nobody is let in by a list that has ended (default: 365)"},
};

static const struct flag issue_flags[] = {
    {"--san", "KIND:NAME", FLAG_LIST, CTL_FLAG(sans),
     "a further name of the node beside DNS:NAME: DNS:host, IP:address or URI:text; may be given "
     "again. Others must reach the node by one of its DNS or IP names"},
    {"--days", "N", FLAG_NUMBER, CTL_FLAG(days), "days until it expires (default: 365)"},
};

const struct command command_pki_init = {
    .name = "pki init",
    .arguments = "DIR",
    .summary = "make a certificate authority",
    .text = "Makes a certificate authority in DIR: ca.pem, which every node needs, and ca.key, "
	    "which stays\n"
	    "here: whoever has it can make certificates that all nodes trust. It is valid for 10 "
	    "years.\n\n"
	    "example:\n"
	    "  haulctl pki init /root/haul-pki\n",
    .word_count = 1,
    .run = init,
};

const struct command command_pki_issue = {
    .name = "pki issue",
    .arguments = "DIR NAME",
    .summary = "make a certificate for a node or a user",
    .text =
	"Makes NAME.pem and NAME.key in DIR, signed by the authority that is there. Copy them and\n"
	"ca.pem to the node, the key readable for root only.\n\n"
	"example: a node that is reached by name and by address\n"
	"  haulctl pki issue /root/haul-pki b --san DNS:b.example.org --san IP:10.0.0.2\n",
    .flags = issue_flags,
    .flag_count = array_len(issue_flags),
    .word_count = 2,
    .run = issue,
};

const struct command command_pki_list = {
    .name = "pki list",
    .arguments = "DIR",
    .summary = "list the certificates of an authority",
    .text = "Lists the certificates that are in DIR and come from the authority there: name, end, "
	    "state\n"
	    "(valid, expired, revoked) and serial number; then what is revoked and has no file "
	    "there.\n\n"
	    "example:\n"
	    "  haulctl pki list /root/haul-pki\n",
    .word_count = 1,
    .run = list_all,
};

const struct command command_pki_revoke = {
    .name = "pki revoke",
    .arguments = "DIR NAME",
    .summary = "take a certificate back",
    .text = "Puts the certificate NAME.pem of DIR, or the one with the number serial:HEX, on the "
	    "authority's\n"
	    "revocation list, crl.pem. It takes effect at a node when the list is there (hauld "
	    "--crl) and\n"
	    "hauld has got a SIGHUP: from then on nobody gets in with it, and who is in is "
	    "disconnected.\n\n"
	    "example: the node b is lost\n"
	    "  haulctl pki revoke /root/haul-pki b\n"
	    "  scp /root/haul-pki/crl.pem a:/etc/haul/ && ssh a pkill -HUP -x hauld\n",
    .flags = crl_flags,
    .flag_count = array_len(crl_flags),
    .word_count = 2,
    .run = revoke_one,
};

const struct command command_pki_crl = {
    .name = "pki crl",
    .arguments = "DIR",
    .summary = "write the revocation list anew",
    .text = "Writes crl.pem in DIR with what is revoked, maybe nothing, to begin with or because "
	    "the one\n"
	    "before ends soon.\n\n"
	    "example:\n"
	    "  haulctl pki crl /root/haul-pki --days 90\n",
    .flags = crl_flags,
    .flag_count = array_len(crl_flags),
    .word_count = 1,
    .run = renew_list,
};
