import { accessSync, constants } from "node:fs";
import { codeOf, messageOf } from "../../../common/errors.ts";
import { runCommand } from "../run-command.ts";

const isThere = async (program: string, ...parameters: readonly string[]): Promise<boolean> => {
  try {
    await runCommand(program, parameters);
    return true;
  } catch (error) {
    if (codeOf(error) === "command-missing") return false;
    throw error;
  }
};

/** Why no pool of kind `lvm` can be made here; undefined where one can. */
export const whyNoLvm = async (): Promise<string | undefined> => {
  if (process.getuid?.() !== 0) return "only root may attach loop devices";
  try {
    accessSync("/dev/loop-control", constants.R_OK | constants.W_OK);
    if (!(await isThere("lvm", "version"))) return "lvm2 is not installed";
    await runCommand("losetup", ["--find"]);
    return undefined;
  } catch (error) {
    return messageOf(error);
  }
};
