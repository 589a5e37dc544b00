import type { Row } from "../../storage-node/wire.ts";
import type { ContainerPlace } from "../core/container-place.ts";
import type { DueRow, ObjectPlace, Shown } from "../core/object-script.ts";
import { dueRowOf } from "./due-index.ts";
import { decodeObjectMetadata, encodeObjectRow, type ObjectMetadata } from "./object-metadata.ts";
import type { ReplicaSet } from "./partition.ts";
import type { Partitions } from "./partitions.ts";

const NOTHING = new Uint8Array();

/** Where one object lives. `given`: what a plain PUT encoded a moment ago, so that it is not decoded again. */
export class ObjectAt implements ObjectPlace<ReplicaSet> {
  readonly object: ReplicaSet;
  readonly container: ContainerPlace<ReplicaSet>;
  readonly #partitions: Partitions;
  readonly #name: string;
  readonly #given: ObjectMetadata | undefined;

  constructor(
    partitions: Partitions,
    object: ReplicaSet,
    container: ContainerPlace<ReplicaSet>,
    name: string,
    given: ObjectMetadata | undefined,
  ) {
    this.object = object;
    this.container = container;
    this.#partitions = partitions;
    this.#name = name;
    this.#given = given;
  }

  rowOf(shown: Shown): Row {
    const { version, isTombstone, bodyLength } = shown;
    const name = this.#name;
    if (isTombstone) return { name, version, isDeleted: true, objects: 0, bytes: 0, payload: NOTHING };
    const payload = encodeObjectRow(this.#given ?? decodeObjectMetadata(shown.metadata));
    return { name, version, isDeleted: false, objects: 1, bytes: bodyLength, payload };
  }

  dueRowOf(shown: Shown): DueRow<ReplicaSet> | undefined {
    if (shown.isTombstone) return undefined;
    const { deleteAt } = this.#given ?? decodeObjectMetadata(shown.metadata);
    if (deleteAt === undefined) return undefined;
    const due = dueRowOf(this.#partitions, this.object.name.path, deleteAt, shown.version);
    return this.object.handOffs === undefined ? due : { ...due, set: this.#partitions.available(due.set) };
  }
}
