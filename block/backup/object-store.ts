/**
 * What backups need of an object store. Names are chosen so that an object is never replaced by another one: whoever reads what is there reads the
 * right thing. Errors: "object-store-away" (it does not answer, or says that it cannot now), "object-store-refused" (asking again does not help).
 */
export type ObjectStore = {
  /** Resolves once it is stored durably. The container is made where it is not there. */
  put(container: string, name: string, bytes: Buffer): Promise<void>;
  /** Undefined where there is none; "object-store-refused" for one of more than `limitBytes`. */
  get(container: string, name: string, limitBytes: number): Promise<Buffer | undefined>;
  has(container: string, name: string): Promise<boolean>;
  /** Resolves once it is not there, also where it never was. */
  remove(container: string, name: string): Promise<void>;
  /** Those whose names begin with `prefix`, in the order of their names, behind `marker`; fewer than LISTED_LIMIT: these are the last. */
  list(container: string, prefix: string, marker: string): Promise<readonly StoredObject[]>;
};

export type StoredObject = { readonly name: string; readonly sizeBytes: number; readonly modifiedAtMs: number };

/** Names in one answer. */
export const LISTED_LIMIT = 1000;
