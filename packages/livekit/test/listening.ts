import type { ActualPermission } from '../src/index.ts';

/** May listen, and nothing else. */
export const listening: ActualPermission = {
  canSubscribe: true,
  canPublish: false,
  canPublishData: false,
  canPublishSources: [],
  hidden: false,
  canUpdateMetadata: false,
  canSubscribeMetrics: false,
  canManageAgentSession: false,
  recorder: false,
  agent: false,
};
