import assert from "node:assert/strict";
import { test } from "node:test";
import { handedOver } from "./handed-over.ts";

test("handedOver yields each piece on request and in order, and ends after the work has ended", async () => {
  let handed = 0;
  let isOver = false;
  const taken: number[] = [];
  for await (const piece of handedOver<number>(async (hand) => {
    for (let i = 0; i < 5; i++) {
      await hand(i);
      handed++;
    }
    isOver = true;
  })) {
    assert.ok(handed <= piece + 1, `${handed} were handed over when ${piece} was taken`);
    taken.push(piece);
  }
  assert.deepEqual([taken, isOver], [[0, 1, 2, 3, 4], true]);
});

test("handedOver throws the work's error after the last piece", async () => {
  const failure = new Error("no more");
  const taken: number[] = [];
  const take = async (): Promise<void> => {
    for await (const piece of handedOver<number>(async (hand) => {
      await hand(1);
      throw failure;
    }))
      taken.push(piece);
  };
  await assert.rejects(take(), failure);
  assert.deepEqual(taken, [1]);
});

test("handedOver waits until the work has ended if the consumer stops early", async () => {
  let end = "";
  for await (const piece of handedOver<number>(async (hand) => {
    try {
      for (let i = 0; ; i++) await hand(i);
    } finally {
      await new Promise((resolve) => setTimeout(resolve, 20));
      end = "ended";
    }
  }))
    if (piece === 3) break;
  assert.equal(end, "ended");
});
