/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/raw.h"

static void init(ProtobufCMessage *message)
{
	*message = (ProtobufCMessage)PROTOBUF_C_MESSAGE_INIT(&raw_message_descriptor);
}

const ProtobufCMessageDescriptor raw_message_descriptor = {
    .magic = PROTOBUF_C__MESSAGE_DESCRIPTOR_MAGIC,
    .name = "message",
    .short_name = "message",
    .c_name = "ProtobufCMessage",
    .package_name = "",
    .sizeof_message = sizeof(ProtobufCMessage),
    .message_init = init,
};
