import { blockError } from "./block-error.ts";

/** The minor number of Block Storage 3.x that a request is answered in. */
export type Microversion = number;

export const MICROVERSION_MIN: Microversion = 0;
export const MICROVERSION_MAX: Microversion = 71;

const SERVICE_TYPES = ["volume", "block-storage"];

export const formatMicroversion = (minor: Microversion): string => `3.${minor}`;

/**
 * What a header `OpenStack-API-Version` asks of this service: `volume 3.27`, `volume latest`, among those of other services. Without one it
 * is 3.0. Throws `bad-request`, `unsupported-version`.
 */
export const negotiateMicroversion = (header: string | undefined): Microversion => {
  for (const part of (header ?? "").split(",")) {
    const [service = "", version = "", ...rest] = part.trim().split(/\s+/);
    if (!SERVICE_TYPES.includes(service.toLowerCase())) continue;
    if (version.toLowerCase() === "latest" && rest.length === 0) return MICROVERSION_MAX;
    const [, major, minor] = /^([1-9]\d{0,5})\.(0|[1-9]\d{0,5})$/.exec(version) ?? [];
    if (major === undefined || rest.length > 0) {
      const form = "Version must be of the format MajorNum.MinorNum";
      throw blockError("bad-request", `API Version String '${version}' is of invalid format. ${form}.`);
    }
    if (major !== "3" || Number(minor) > MICROVERSION_MAX) {
      const range = `Minimum is ${formatMicroversion(MICROVERSION_MIN)} and maximum is ${formatMicroversion(MICROVERSION_MAX)}`;
      throw blockError("unsupported-version", `Version ${version} is not supported by the API. ${range}.`);
    }
    return Number(minor);
  }
  return MICROVERSION_MIN;
};
