// Reads a recording whole by the MCAP and ROS 2 libraries that Foxglove is built of; prints how many messages of each
// topic it decoded. Called as: node read_all.mjs FILE MODULES
import fs from "node:fs/promises";
import { createRequire } from "node:module";

const [file, modules] = process.argv.slice(2);
const load = createRequire(`${modules}/`);
const { McapIndexedReader } = load("@mcap/core");
const { loadDecompressHandlers } = load("@mcap/support");
const { FileHandleReadable } = load("@mcap/nodejs");
const { parse } = load("@foxglove/rosmsg");
const { MessageReader } = load("@foxglove/rosmsg2-serialization");

const readable = new FileHandleReadable(await fs.open(file, "r"));
const reader = await McapIndexedReader.Initialize({ readable, decompressHandlers: await loadDecompressHandlers() });
const decoders = new Map();
for (const channel of reader.channelsById.values()) {
  const text = new TextDecoder().decode(reader.schemasById.get(channel.schemaId).data);
  decoders.set(channel.id, new MessageReader(parse(text, { ros2: true })));
}
const topics = {};
const last = {};
for await (const message of reader.readMessages({ validateCrcs: true })) {
  const { topic } = reader.channelsById.get(message.channelId);
  last[topic] = decoders.get(message.channelId).readMessage(message.data);
  topics[topic] = (topics[topic] ?? 0) + 1;
}
const plain = (_, value) =>
  typeof value === "bigint" ? Number(value) : ArrayBuffer.isView(value) ? Array.from(value) : value;
console.log(JSON.stringify({ profile: reader.header.profile, promised: reader.statistics.messageCount, topics, last }, plain));
