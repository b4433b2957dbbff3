// Wire 0.2 as docs/protocol.md has it: values, heads and bodies to bytes and back. Nothing here knows a socket.

import { decode, decodeMulti, encode, ExtensionCodec } from "@msgpack/msgpack";

export const KIND = {
  PACKAGE: 1, INFO: 2, TASKS: 3, PUBLISH: 4, LATEST: 5, PROGRESS: 6, CANCEL: 7, STATS: 8, RELOAD: 9, STOP: 10,
};
export const REPLY = { ALL: 0, ERRORS: 1, NONE: 2, EACH: 3 };
export const PRIORITY = { LOW: 0, NORMAL: 1, HIGH: 2, URGENT: 3 };
export const ERROR_NAMES = {
  1: "TaskFailed", 2: "UnknownTask", 3: "BadArguments", 4: "TaskTimeout", 5: "WorkerLost", 6: "Overloaded",
  7: "Cancelled", 8: "NotAllowed", 9: "ProtocolError", 10: "EngineUnreachable",
};
const MAGIC = Uint8Array.of(0x54, 0x45, 0x02);

/** An error of the engine or of a task. */
export class EngineError extends Error {
  constructor(code, message, fields = {}) {
    super(message);
    this.code = code;
    this.name = ERROR_NAMES[code] ?? "TaskEngineError";
    this.fields = fields;
  }
}

/** A numpy array: `dtype` as in numpy's array interface, `data` the bytes in C order. */
export class NumpyArray {
  constructor(dtype, shape, data) {
    Object.assign(this, { dtype, shape, data });
  }
}

const extensions = new ExtensionCodec();
extensions.register({
  type: 1,
  encode: (value) => (value instanceof EngineError ? pack([value.code, value.message, value.fields]) : null),
  decode: (data) => new EngineError(...unpack(data)),
});
extensions.register({
  type: 2,
  encode: (value) => (value instanceof NumpyArray ? packArray(value) : null),
  decode: unpackArray,
});
const options = { extensionCodec: extensions, useBigInt64: true };

export const pack = (value) => encode(value, options);
export const unpack = (data) => decode(data, options);
export const unpackAll = (data) => [...decodeMulti(data, options)];

function packArray({ dtype, shape, data }) {
  const text = new TextEncoder().encode(dtype);
  const sizes = new BigUint64Array(shape.map(BigInt));
  return join([Uint8Array.of(text.length), text, Uint8Array.of(shape.length), bytesOf(sizes), data]);
}

function unpackArray(data) {
  const end = 1 + data[0];
  const dtype = new TextDecoder().decode(data.subarray(1, end));
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const shape = Array.from({ length: data[end] }, (_, axis) => Number(view.getBigUint64(end + 1 + 8 * axis, true)));
  return new NumpyArray(dtype, shape, data.slice(end + 1 + 8 * data[end]));
}

export function join(parts) {
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** The bytes of a typed array; JavaScript runs on little-endian machines, as the wire is. */
const bytesOf = (array) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

const REQUEST_PLACES = [
  "kind", "serial", "client", "names", "reply", "priority", "deadline", "idempotent", "columns", "sent", "bound",
  "token", "since", "values",
];

/** Those that only requests of streams have; the one behind them asks for progress. */
const STREAM_PLACES = ["most", "mostBytes"];

/** The first frame of a request; this client takes none of the extensions of `values`. */
export function packHead(head) {
  const whole = {
    names: [], reply: 0, priority: 1, deadline: 0, idempotent: false, columns: false, sent: 0, bound: 0,
    token: new Uint8Array(0), since: 0, values: false, most: 1, mostBytes: 1, progress: false, ...head,
  };
  const places = "most" in head || "progress" in head ? [...REQUEST_PLACES, ...STREAM_PLACES] : [...REQUEST_PLACES];
  if ("progress" in head) places.push("progress");
  return join([MAGIC, pack(places.map((name) => whole[name]))]);
}

const REPLY_PLACES = ["serial", "count", "reply", "error", "failed", "clock", "boot", "stop", "first", "last"];
const REPLY_DEFAULTS = [0, 0, 0, null, 0, 0, 0, 0, 0, true];

/** The head of a reply, by the names of its places. */
export function unpackHead(frame) {
  if (frame.length < 4 || MAGIC.some((byte, at) => frame[at] !== byte)) {
    throw new EngineError(9, "a reply begins with 54 45 02");
  }
  const values = unpack(frame.subarray(3));
  return Object.fromEntries(REPLY_PLACES.map((name, place) => [name, values[place] ?? REPLY_DEFAULTS[place]]));
}

/** What a reply holds: a result or an error for each task, or one value. Throws where the whole request was refused. */
export function results(frames) {
  const head = unpackHead(frames[0]);
  if (head.error !== null) throw new EngineError(...head.error);
  const values = frames.length > 1 ? unpackAll(frames[1]) : [];
  if (head.reply === REPLY.ALL || head.reply === REPLY.EACH) {
    if (values.length !== head.count) throw new EngineError(9, `${values.length} values of ${head.count}`);
    return values;
  }
  const found = new Array(head.count).fill(undefined);
  for (let at = 0; at < values.length; at += 2) found[values[at]] = values[at + 1];
  return found;
}

/** INDEX and BODY of a package of calls, each [name, args, kwargs], and the names for its head. */
export function packCalls(calls) {
  const places = new Map();
  const ends = new Uint32Array(calls.length);
  const parts = [];
  let end = 0;
  calls.forEach(([name, args = [], kwargs], position) => {
    if (!places.has(name)) places.set(name, places.size);
    const task = [places.get(name), args];
    if (kwargs !== undefined && Object.keys(kwargs).length) task.push(kwargs);
    parts.push(pack(task));
    ends[position] = end += parts.at(-1).length;
  });
  return { names: [...places.keys()], index: bytesOf(ends), body: join(parts) };
}

/** INDEX and BODY of columns, each a Float64Array or a BigInt64Array. */
export function packColumns(columns) {
  const codes = columns.map((column) => (column instanceof BigInt64Array ? 0x69 : 0x66));
  return { index: Uint8Array.from(codes), body: join(columns.map(bytesOf)) };
}
