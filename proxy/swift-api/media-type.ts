/** Types by file ending, for uploads that name none: the ones that people store, as the IANA registry has them. */
const MEDIA_TYPES: Readonly<Record<string, string>> = {
  css: "text/css",
  csv: "text/csv",
  gif: "image/gif",
  htm: "text/html",
  html: "text/html",
  iso: "application/x-iso9660-image",
  jpeg: "image/jpeg",
  jpg: "image/jpeg",
  js: "text/javascript",
  json: "application/json",
  md: "text/markdown",
  mp3: "audio/mpeg",
  mp4: "video/mp4",
  pdf: "application/pdf",
  png: "image/png",
  svg: "image/svg+xml",
  tar: "application/x-tar",
  txt: "text/plain",
  wasm: "application/wasm",
  webp: "image/webp",
  xml: "text/xml",
  zip: "application/zip",
};

/** Endings that say how bytes are packed, not what they are. */
const PACKINGS = new Set(["br", "bz2", "gz", "xz", "z"]);
/** Endings that say both. */
const PACKED_TAR = new Set(["taz", "tbz2", "tgz", "txz", "tz"]);

/** The media type of a name by its ending, that of what is packed for a packed one; `application/octet-stream` for any other. */
export const mediaTypeOf = (name: string): string => {
  const [last = "", ...before] = name
    .slice(name.lastIndexOf("/") + 1)
    .toLowerCase()
    .split(".")
    .slice(1)
    .toReversed();
  const ending = PACKED_TAR.has(last) ? "tar" : PACKINGS.has(last) ? (before[0] ?? "") : last;
  return (Object.hasOwn(MEDIA_TYPES, ending) ? MEDIA_TYPES[ending] : undefined) ?? "application/octet-stream";
};
