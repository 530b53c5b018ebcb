/** Tests of the functions that plugins do not have. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { install } from "../larder_plugin/sandbox.js";

const UNAVAILABLE = {
  "Date.now()": "Date.now(): a plugin has no clock. hint: declare readsTime: true",
  "Date()": "Date(): a plugin has no clock",
  "new Date()": "new Date() without a time: a plugin has no clock",
  "new (class extends Date {})()": "new Date() without a time: a plugin has no clock",
  "new (new Date(0).constructor)()": "new Date() without a time: a plugin has no clock",
  "performance.now()": "performance.now: a plugin has no clock",
  "performance.timeOrigin": "performance.timeOrigin: a plugin has no clock",
  "Math.random()": "Math.random(): a plugin has no randomness",
  "crypto.getRandomValues(new Uint8Array(1))": "crypto.getRandomValues: a plugin has no randomness",
  "crypto.randomUUID()": "crypto.randomUUID: a plugin has no randomness",
  "setTimeout(() => {}, 1)": "setTimeout(): a plugin cannot wait",
  "setInterval(() => {}, 1)": "setInterval(): a plugin cannot wait",
  "queueMicrotask(() => {})": "queueMicrotask(): a plugin cannot wait",
  'fetch("http://localhost/")': "fetch(): a plugin has no network. hint: pass the data as inputs",
  'new WebSocket("ws://localhost/")': "WebSocket(): a plugin has no network",
};

const AVAILABLE = {
  "new Date(0).toISOString()": "1970-01-01T00:00:00.000Z",
  'Date.parse("1970-01-02T00:00:00Z")': 86_400_000,
  "Date.UTC(1970, 0, 2)": 86_400_000,
  "new Date(5) instanceof Date": true,
  "Math.max(1, 2)": 2,
};

test("unavailable functions have a hint", () => {
  for (const [code, message] of Object.entries(UNAVAILABLE)) {
    const call = new Function(`return ${code}`);
    const restore = install();
    let thrown;
    try {
      call();
    } catch (error) {
      thrown = error;
    } finally {
      restore();
    }
    assert.equal(thrown?.name, "Unavailable", code);
    assert.ok(thrown.message.includes(message), `${code}: ${thrown.message}`);
  }
});

test("other functions work", () => {
  const restore = install();
  try {
    for (const [code, value] of Object.entries(AVAILABLE)) assert.equal(new Function(`return ${code}`)(), value, code);
  } finally {
    restore();
  }
});

test("sandbox is removed", () => {
  const before = [Date, Date.now, Math.random, performance, crypto, setTimeout, Date.prototype.constructor];
  install()();
  assert.deepEqual(before, [Date, Date.now, Math.random, performance, crypto, setTimeout, Date.prototype.constructor]);
  assert.ok(Date.now() > 0);
});
