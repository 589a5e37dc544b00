import { randomUUID } from "node:crypto";
import { createFakeObjectStore } from "./fake-object-store.ts";
import { objectStoreContract } from "./object-store.contract.ts";

objectStoreContract(async () => ({ store: createFakeObjectStore(), container: randomUUID() }));
