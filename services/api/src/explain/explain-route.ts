import { ExplainQuery } from '@realtime-service/contracts';
import type { FactsQuery, ProvenFacts } from '@realtime-service/room-store';
import type { Logger } from '@realtime-service/telemetry';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { fromStore } from '../join/decide-join.ts';
import { createProblemHandler, type OnProblem } from '../problem.ts';
import { readRequest } from '../read-request.ts';
import { explain, type KnownFreshness } from './explanation.ts';

interface ExplainDependencies {
  /** Fails when there is no answer within a few seconds. */
  readonly readProvenance: (query: FactsQuery) => Promise<ProvenFacts>;
  readonly freshness: KnownFreshness;
  readonly logger: Logger;
}

const ExplainRequest = z.object({ query: ExplainQuery });

/** For operators: may this person enter that room at this moment, and which facts say so? */
export const registerExplain = (ops: FastifyInstance, dependencies: ExplainDependencies): void => {
  const { readProvenance, freshness, logger } = dependencies;
  const noteProblem: OnProblem = ({ code, reason, cause }) => {
    if (cause !== undefined) logger.warn({ operation: 'explain', code, reason, err: cause }, 'request failed');
  };

  ops.get('/explain', { errorHandler: createProblemHandler(noteProblem) }, async ({ query }, reply) => {
    const { room, user, login } = readRequest(ExplainRequest, { query }).query;
    const asked = { roomId: room, userId: user, loginId: login ?? null };
    const proven = await fromStore(readProvenance(asked));
    reply.header('cache-control', 'no-store');
    return explain(asked, proven, freshness);
  });
};
