import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import Fastify, { type FastifyInstance, type RouteHandlerMethod } from 'fastify';

/** The generated OpenAPI document, and pages to read it with: the only HTML here. */
const createDocs = async (): Promise<FastifyInstance> => {
  const [{ default: helmet }, { default: swagger }, { default: swaggerUi }] = await Promise.all([
    import('@fastify/helmet'),
    import('@fastify/swagger'),
    import('@fastify/swagger-ui'),
  ]);
  const path = fileURLToPath(import.meta.resolve('@realtime-service/contracts/openapi.json'));
  const docs = Fastify();
  await docs.register(helmet, { contentSecurityPolicy: false });
  await docs.register(swagger, { mode: 'static', specification: { path, baseDir: dirname(path) } });
  await docs.register(swaggerUi, { routePrefix: '/docs', staticCSP: true });
  await docs.ready();
  return docs;
};

/** Built when somebody first asks, and after a failure when somebody asks again: most processes never need its 4 MB. */
export const registerDocs = (app: FastifyInstance, create: () => Promise<FastifyInstance> = createDocs): void => {
  let docs: Promise<FastifyInstance> | undefined;
  const answer: RouteHandlerMethod = async (request, reply) => {
    docs ??= create().catch((error: unknown) => {
      docs = undefined;
      throw error;
    });
    const { routing } = await docs;
    reply.hijack();
    routing(request.raw, reply.raw);
  };
  app.get('/docs', answer);
  app.get('/docs/*', answer);
};
