/** What users are told of failures: the numbers and texts of Cinder's `message_field`. */
const ACTIONS = {
  schedule: ["001", "schedule allocate volume"],
  attach: ["002", "attach volume"],
  extend: ["007", "extend volume"],
  create: ["008", "create volume from backend storage"],
  "snapshot-create": ["009", "create snapshot"],
  "snapshot-delete": ["010", "delete snapshot"],
  "backup-create": ["013", "create backup"],
  "backup-delete": ["014", "delete backup"],
  "backup-restore": ["015", "restore backup"],
} as const;
export type FailedAction = keyof typeof ACTIONS;

const DETAILS = {
  unknown: ["001", "An unknown error occurred."],
  "no-backend": ["003", "Could not find any available weighted backend."],
  quota: ["006", "Not enough quota resource for operation."],
  "extend-failed": ["010", "Volume Driver failed to extend volume."],
  "create-failed": ["012", "Driver failed to create the volume."],
  "snapshot-create-failed": ["013", "Snapshot failed to create."],
  "snapshot-delete-failed": ["016", "Snapshot failed to delete."],
  "backup-create-failed": ["020", "Backup driver failed to create backup."],
  "backup-delete-failed": ["025", "Backup driver failed to delete backup."],
  "backup-restore-failed": ["026", "Backup driver failed to restore backup."],
} as const;
export type FailureDetail = keyof typeof DETAILS;

/** The event's name and the sentence that goes with it. */
export const messageTexts = (
  resourceType: string,
  action: FailedAction,
  detail: FailureDetail,
): { readonly eventId: string; readonly text: string } => ({
  eventId: `VOLUME_${resourceType}_${ACTIONS[action][0]}_${DETAILS[detail][0]}`,
  text: `${ACTIONS[action][1]}:${DETAILS[detail][1]}`,
});
