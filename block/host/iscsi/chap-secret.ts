import { randomInt } from "node:crypto";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { codeOf } from "../../../common/errors.ts";
import { replaceFile } from "../../../common/replace-file.ts";

/** Some initiators take 12 to 16 characters and no others. */
const SECRET_CHARACTERS = 16;
const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/** 95 bits that nobody can guess, in letters and digits. */
export const newChapSecret = (): string =>
  Array.from({ length: SECRET_CHARACTERS }, () => ALPHABET[randomInt(ALPHABET.length)]).join("");

const fileIn = (folder: string): string => join(folder, "chap");

/** The secret of an attachment, made where it has none. `folder`: its credentials, for their owner's eyes alone. */
export const ensureChapSecret = (folder: string): string => {
  try {
    const secret = readFileSync(fileIn(folder), "utf8").trim();
    if (secret.length === SECRET_CHARACTERS) return secret;
  } catch (error) {
    if (codeOf(error) !== "ENOENT") throw error;
  }
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const secret = newChapSecret();
  replaceFile(fileIn(folder), `${secret}\n`, 0o600);
  return secret;
};
