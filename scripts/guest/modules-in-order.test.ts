import { expect, test } from "vitest";
import { modulesInOrder } from "./modules-in-order.ts";

test("a module comes after all that it needs, and each once", () => {
  const text = [
    "kernel/virtio/virtio_ring.ko:",
    "kernel/virtio/virtio.ko: kernel/virtio/virtio_ring.ko",
    "kernel/virtio/virtio_pci.ko: kernel/virtio/virtio.ko kernel/virtio/virtio_ring.ko",
    "kernel/fs/virtiofs.ko: kernel/fs/fuse.ko kernel/virtio/virtio.ko kernel/virtio/virtio_ring.ko",
    "",
  ].join("\n");
  const files = modulesInOrder(text, ["virtio-pci", "virtiofs"]).map((file) => file.split("/").at(-1));
  expect(files).toEqual(["virtio_ring.ko", "virtio.ko", "virtio_pci.ko", "fuse.ko", "virtiofs.ko"]);
  expect(() => modulesInOrder(text, ["dm-mod"])).toThrow("no module dm-mod");
});
