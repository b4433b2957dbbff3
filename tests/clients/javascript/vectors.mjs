// The golden messages of docs/protocol/vectors.json against this client's encoders and decoders.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { EngineError, KIND, NumpyArray, pack, packCalls, packColumns, packHead, unpack, unpackAll, unpackHead } from "./wire.mjs";

const HEAD_NAMES = {
  kind: "kind", serial: "serial", client: "client", names: "names", reply: "reply", priority: "priority",
  deadline: "deadline", idempotent: "idempotent", columns: "columns", sent: "sent", bound: "bound", token: "token",
  since: "since", values: "values", most: "most", most_bytes: "mostBytes",
  progress: "progress",
};

const bytes = (hex) => Uint8Array.from(hex.split(" ").filter(Boolean), (byte) => parseInt(byte, 16));

/** What stands in the file for a value of ours. */
function shown(value) {
  if (value instanceof EngineError) return { $error: shown([value.code, value.message, value.fields]) };
  if (value instanceof NumpyArray) {
    return { $array: { dtype: value.dtype, shape: value.shape, data: hex(value.data) } };
  }
  if (value instanceof Uint8Array) return { $bin: hex(value) };
  if (typeof value === "bigint") {
    return value >= 2n ** 53n || value <= -(2n ** 53n) ? { $int: String(value) } : Number(value);
  }
  if (typeof value === "number" && Number.isNaN(value)) return { $float: "nan" };
  if (typeof value === "number" && !Number.isFinite(value)) return { $float: value > 0 ? "inf" : "-inf" };
  if (Array.isArray(value)) return value.map(shown);
  if (value !== null && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, shown(each)]));
  }
  return value;
}

const hex = (data) => [...data].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");

/** A value of ours for what stands in the file. */
export function meant(value) {
  if (Array.isArray(value)) return value.map(meant);
  if (value === null || typeof value !== "object") return value;
  if ("$int" in value) return BigInt(value.$int);
  if ("$float" in value) return { nan: NaN, inf: Infinity, "-inf": -Infinity }[value.$float];
  if ("$bin" in value) return bytes(value.$bin);
  if ("$error" in value) return new EngineError(...meant(value.$error));
  if ("$array" in value) return new NumpyArray(value.$array.dtype, value.$array.shape, bytes(value.$array.data));
  // an object's keys are text: what has others is only read
  if ("$map" in value) return Object.fromEntries(value.$map);
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, meant(each)]));
}

const plain = (value) => ("$map" in Object(value) ? Object.fromEntries(value.$map) : value);

export function* checks(path) {
  const all = JSON.parse(readFileSync(path));
  const wire = all["wire 0.2"];
  for (const { name, value, bytes: told } of [...all.values, ...all.errors]) {
    yield [`vectors: ${name}`, () => {
      assert.deepEqual(shown(unpack(bytes(told))), plain(value));
      assert.deepEqual(shown(unpack(pack(meant(value)))), plain(value));
    }];
  }
  for (const { name, head, tasks, columns, codes, body, frames } of [...wire.packages, ...wire.requests]) {
    if (!("kind" in head)) continue; // of clients that are older, shorter or newer than this one
    yield [`vectors: request: ${name}`, () => {
      const ours = Object.fromEntries(Object.entries(head).map(([key, value]) => [HEAD_NAMES[key], meant(value)]));
      // a float that is whole leaves JavaScript as an int, which the engine takes
      assert.deepEqual(shown(unpack(packHead(ours).subarray(3))), shown(unpack(bytes(frames[0]).subarray(3))));
      if (head.kind !== KIND.PACKAGE) {
        assert.equal(frames.length, body === undefined ? 1 : 2);
        if (body !== undefined) assert.equal(hex(pack(meant(body))), frames[1]);
      } else if (columns) {
        const [ints, floats] = columns;
        const packed = packColumns([BigInt64Array.from(ints.map(BigInt)), Float64Array.from(floats)]);
        assert.equal(new TextDecoder().decode(packed.index), codes);
        assert.deepEqual([packed.index, packed.body].map(hex), frames.slice(1));
      } else {
        const packed = packCalls(tasks.map(({ task, args, kwargs }) => [task, meant(args), meant(kwargs)]));
        assert.deepEqual(packed.names, head.names);
        assert.deepEqual([packed.index, packed.body].map(hex), frames.slice(1));
      }
    }];
  }
  for (const { name, head, values, frames } of wire.replies) {
    yield [`vectors: reply: ${name}`, () => {
      const ours = shown(unpackHead(bytes(frames[0])));
      for (const [key, value] of Object.entries(head)) assert.deepEqual(ours[key], value, key);
      if (values) assert.deepEqual(unpackAll(bytes(frames[1])).map(shown), values);
      else assert.equal(frames.length, 1);
    }];
  }
  for (const { name, reply } of all["wire 0.1"]) {
    yield [`vectors: wire 0.1: ${name}`, () => {
      const [meta, ...data] = (reply ?? ["{}"]).map((frame) => JSON.parse(frame));
      if (reply && !meta.error) assert.equal(meta.size, data.length);
      for (const frame of data) if (frame.errors) assert.equal(frame.size, frame.data.length);
    }];
  }
  for (const { name, topic, value, frames } of all.publications) {
    yield [`vectors: publication: ${name}`, () => {
      assert.equal(frames[0], topic);
      assert.deepEqual(JSON.parse(frames[2]).data, value);
    }];
  }
}
