import { expect, test } from "vitest";
import { createBus } from "./bus.ts";

test("a message reaches those who listen to its topic, in order, though one of them throws", () => {
  const heard: string[] = [];
  const errors: unknown[] = [];
  const bus = createBus((error) => void errors.push(error));
  bus.publish({ topic: "a", type: "before", payload: {} });
  bus.subscribe("a", () => {
    throw new Error("deaf");
  });
  const end = bus.subscribe("a", ({ type }) => void heard.push(type));
  bus.publish({ topic: "a", type: "one", payload: {} });
  bus.publish({ topic: "b", type: "other", payload: {} });
  bus.publish({ topic: "a", type: "two", payload: {} });
  end();
  bus.publish({ topic: "a", type: "three", payload: {} });
  expect(heard).toEqual(["one", "two"]);
  expect(errors).toHaveLength(3);
});
