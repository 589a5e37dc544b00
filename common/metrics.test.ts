import { expect, it } from "vitest";
import { createMetrics } from "./metrics.ts";

it("renders Prometheus text with one head per family", () => {
  const metrics = createMetrics({ role: "test" });
  metrics.counter("ringstead_test_requests_total", "Requests.", { status: "200" }).inc(3);
  metrics.counter("ringstead_test_requests_total", "Requests.", { status: '4"4' }).inc();
  metrics.gauge("ringstead_test_queue_length", "Waiting requests.", () => 7);
  expect(metrics.render()).toBe(
    [
      "# HELP ringstead_test_requests_total Requests.",
      "# TYPE ringstead_test_requests_total counter",
      'ringstead_test_requests_total{role="test",status="200"} 3',
      'ringstead_test_requests_total{role="test",status="4\\"4"} 1',
      "# HELP ringstead_test_queue_length Waiting requests.",
      "# TYPE ringstead_test_queue_length gauge",
      'ringstead_test_queue_length{role="test"} 7',
      "",
    ].join("\n"),
  );
});

it("refuses the same series twice", () => {
  const metrics = createMetrics();
  metrics.gauge("ringstead_test_a", "A.", () => 1);
  expect(() => metrics.gauge("ringstead_test_a", "A.", () => 1)).toThrow("exists twice");
});
