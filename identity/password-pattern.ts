import { createContext, Script } from "node:vm";
import { identityError } from "./core/identity-error.ts";
import type { PasswordPattern } from "./core/password-rules.ts";

/**
 * What one check may take. Any sane expression takes microseconds for the longest password; one that goes back and forth (`(a+)+$`) takes
 * longer than the sun will shine.
 */
const CHECK_LIMIT_MS = 100;

/** Not `codeOf`: an error of that context is no instance of this one's Error. */
const isTimeout = (thrown: unknown): boolean =>
  typeof thrown === "object" && thrown !== null && "code" in thrown && thrown.code === "ERR_SCRIPT_EXECUTION_TIMEOUT";

/**
 * The operator's expression, as JavaScript has them: lookaheads too, which the engines in linear time lack. It runs in a context of its own, since V8
 * ends only such a run from outside. A password that takes too long is refused, and the process goes on. Throws SyntaxError for no expression.
 */
export const createPasswordPattern = (source: string, description: string): PasswordPattern => {
  // Where it begins counts, as in Keystone; where it ends, the expression says itself.
  const pattern = new RegExp(source, "y");
  const sandbox = { pattern, password: "" };
  const context = createContext(sandbox, { codeGeneration: { strings: false, wasm: false } });
  const script = new Script("pattern.lastIndex = 0; pattern.test(password)");
  return {
    source,
    description,
    isMatchedBy: (password) => {
      sandbox.password = password;
      try {
        return script.runInContext(context, { timeout: CHECK_LIMIT_MS }) === true;
      } catch (thrown) {
        if (!isTimeout(thrown)) throw thrown;
        throw identityError(
          "bad-request",
          `The password takes too long to compare with the requirements: ${description}. Choose another, or tell the operator.`,
        );
      } finally {
        sandbox.password = "";
      }
    },
  };
};
