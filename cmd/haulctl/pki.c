/* SPDX-License-Identifier: Apache-2.0 */
/* haulctl pki: certificates for people who have no authority of their own. */
#include "cmd/haulctl/certificates.h"
#include "cmd/haulctl/ctl.h"
#include "cmd/haulctl/render_json.h"

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
