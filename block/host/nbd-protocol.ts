/**
 * Numbers of the NBD protocol (github.com/NetworkBlockDevice/nbd, doc/proto.md), as far as it takes to use an export and to be one: fixed newstyle
 * handshake, structured replies, metadata contexts.
 */

export const NBD_MAGIC = 0x4e42444d41474943n;
export const OPTION_MAGIC = 0x49484156454f5054n;
export const OPTION_REPLY_MAGIC = 0x3e889045565a9n;
export const REQUEST_MAGIC = 0x25609513;
export const SIMPLE_REPLY_MAGIC = 0x67446698;
export const STRUCTURED_REPLY_MAGIC = 0x668e33ef;

export const OPTION_ABORT = 2;
export const OPTION_INFO = 6;
export const OPTION_GO = 7;
export const OPTION_STRUCTURED_REPLY = 8;
export const OPTION_SET_META_CONTEXT = 10;

export const REPLY_ACK = 1;
export const REPLY_INFO = 3;
export const REPLY_META_CONTEXT = 4;
export const REPLY_ERROR_BIT = 0x8000_0000;
export const REPLY_UNSUPPORTED = REPLY_ERROR_BIT + 1;
export const REPLY_INVALID = REPLY_ERROR_BIT + 3;
export const REPLY_UNKNOWN = REPLY_ERROR_BIT + 6;
export const INFO_EXPORT = 0;
export const INFO_DESCRIPTION = 2;

/** Fixed newstyle, and no padding of zeros. */
export const HANDSHAKE_FLAGS = 3;
/** There are flags, it is read-only, and may be flushed. */
export const READ_ONLY_FLAGS = 7;

export const COMMAND_READ = 0;
export const COMMAND_WRITE = 1;
export const COMMAND_DISCONNECT = 2;
export const COMMAND_FLUSH = 3;
export const COMMAND_TRIM = 4;
export const COMMAND_WRITE_ZEROES = 6;
export const COMMAND_BLOCK_STATUS = 7;

export const CHUNK_NONE = 0;
export const CHUNK_OFFSET_DATA = 1;
export const CHUNK_OFFSET_HOLE = 2;
export const CHUNK_BLOCK_STATUS = 5;
export const CHUNK_ERROR_BIT = 0x8000;
export const CHUNK_ERROR = CHUNK_ERROR_BIT + 1;
export const FLAG_DONE = 1;

/** Error numbers of Linux, which the protocol goes by. */
export const ERROR_NOT_PERMITTED = 1;
export const ERROR_IO = 5;
export const ERROR_INVALID = 22;
