import xxhash from "xxhash-wasm";

const api = await xxhash();

/** xxh64 of `bytes` with `seed`. Used for placement, checksums and set-hashes; it is no cryptographic hash. */
export const xxh64: (bytes: Uint8Array, seed?: bigint) => bigint = (bytes, seed) => api.h64Raw(bytes, seed);

/** xxh64 of a string's UTF-8 form with `seed`. */
export const xxh64OfString: (text: string, seed?: bigint) => bigint = (text, seed) => api.h64(text, seed);
