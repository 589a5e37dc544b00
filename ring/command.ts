import { parseArgs, type ParseArgsOptionsConfig } from "node:util";
import { codeOf, messageOf, RingsteadError } from "../common/errors.ts";
import { changeCommands } from "./change-commands.ts";
import { type CommandOutput, type Options, UsageError } from "./command-words.ts";
import { lookCommands } from "./look-commands.ts";
import { statusCommand } from "./status-command.ts";

const HELP = `ringstead ring: where the data lies

  ring create BUILDER --partition-power N --replicas R [--min-part-hours N] [--overload F] [--hash-seed HEX]
                                       R may be a fraction: of 2.5 every second partition has 3 replicas, the others 2
  ring add BUILDER --node NAME --device NAME --weight W [--region N] [--zone N] [--meta TEXT]
  ring weight BUILDER ID WEIGHT        0 empties the device over the next rebalances
  ring remove BUILDER ID               the device is lost: its replicas are placed elsewhere at once; added again, it is a new one
  ring set-replicas BUILDER R          more are placed by the next rebalance, those too many are given up
  ring set-overload BUILDER F          fraction over its share that a device may take where that brings replicas further apart
  ring rebalance BUILDER [--ring RING] [--seed N] [--force] [--plan] [--rewrite]
                                       few moves, then writes RING (default: BUILDER with .ring for .builder);
                                       --force does not wait for min_part_hours to pass; --plan writes no RING. An
                                       installation whose DIR/rings has RING moves the data while it serves; --rewrite
                                       writes RING anew where it cannot be read, above every version that was followed
  ring increase-part-power BUILDER [--ring RING] [--plan]
                                       twice as many partitions, in force with the next start; no data moves. Not
                                       once data has moved
  ring show FILE [--json]              a builder or a ring file
  ring dispersion BUILDER [--nodes] [--json]
                                       how far apart the replicas are: regions and zones, with --nodes the nodes too
  ring validate BUILDER [--ring RING]  exit code 1 if anything is wrong with it
  ring lookup RING ACCOUNT [CONTAINER [OBJECT]]
  ring handoffs RING PARTITION | ACCOUNT [CONTAINER [OBJECT]] [--count N]

  ring status [--data DIR] [--json]    what is to move, is on its way, has moved

Changes go into the builder file; services see them once "rebalance" has written the ring file. On several nodes it is to be put into DIR/rings
of each node that has a proxy, under a name of its own first and then renamed.
`;

const standardOutput: CommandOutput = {
  out: (text) => void process.stdout.write(text),
  error: (text) => void process.stderr.write(text),
};

/** `ringstead ring …`, `dataDir` what it looks at where no --data is given. Resolves to the exit code: 0 done, 1 refused (the reason is on stderr) or found wrong, 2 wrong usage. */
export const ringCommand = async (
  argv: string[],
  output: CommandOutput = standardOutput,
  dataDir = "",
): Promise<number> => {
  const [name = "", ...rest] = argv;
  if (name === "help" || name === "--help" || name === "-h") {
    output.out(HELP);
    return 0;
  }
  try {
    const subcommand = { ...changeCommands(output), ...lookCommands(output), status: statusCommand(output, dataDir) }[
      name
    ];
    if (subcommand === undefined)
      throw new UsageError(name === "" ? "which ring command?" : `no ring command "${name}"`);
    const { values, positionals } = parse(rest, subcommand.options);
    const [min, max] = subcommand.words;
    if (positionals.length < min || positionals.length > max)
      throw new UsageError(
        `ring ${name} takes ${min === max ? min : `${min} to ${max}`} arguments, not ${positionals.length}`,
      );
    return subcommand.run(positionals, values) ?? 0;
  } catch (error) {
    if (error instanceof UsageError) {
      output.error(`${error.message}\n\n${HELP}`);
      return 2;
    }
    if (!(error instanceof RingsteadError)) throw error;
    output.error(`${error.message}\n`);
    return 1;
  }
};

const parse = (args: string[], options: ParseArgsOptionsConfig): { values: Options; positionals: string[] } => {
  try {
    const { values, positionals } = parseArgs({ args, options, allowPositionals: true });
    return { values: values as Options, positionals };
  } catch (error) {
    if (codeOf(error)?.startsWith("ERR_PARSE_ARGS") === true) throw new UsageError(messageOf(error));
    throw error;
  }
};
