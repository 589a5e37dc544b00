import xxhash from "xxhash-wasm";

const api = await xxhash();

/** xxh64 of `bytes` with `seed`. Used for placement, checksums and set-hashes; it is no cryptographic hash. */
export const xxh64: (bytes: Uint8Array, seed?: bigint) => bigint = api.h64Raw;

/** xxh64 of a string's UTF-8 form with `seed`. */
export const xxh64OfString: (text: string, seed?: bigint) => bigint = api.h64;
