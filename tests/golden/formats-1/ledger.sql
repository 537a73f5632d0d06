BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0003');
CREATE TABLE events (
	id INTEGER NOT NULL, 
	model VARCHAR(64) NOT NULL, 
	sequence INTEGER NOT NULL, 
	release INTEGER NOT NULL, 
	kind VARCHAR(32) NOT NULL, 
	cause VARCHAR(64) NOT NULL, 
	reason TEXT NOT NULL, 
	at VARCHAR(40) NOT NULL, "instead" INTEGER, 
	PRIMARY KEY (id), 
	UNIQUE (model, sequence)
);
INSERT INTO "events" VALUES(1,'golden',1,1,'released','person','a golden fixture','2026-12-01T14:31:46+00:00',NULL);
INSERT INTO "events" VALUES(2,'golden',2,2,'released','person','its package is not kept','2026-12-01T14:31:46+00:00',1);
CREATE TABLE looks (
	id INTEGER NOT NULL, 
	model VARCHAR(64) NOT NULL, 
	release INTEGER, 
	at VARCHAR(40) NOT NULL, 
	found JSON NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE releases (
	id INTEGER NOT NULL, 
	model VARCHAR(64) NOT NULL, 
	number INTEGER NOT NULL, 
	bento VARCHAR(200) NOT NULL, 
	digests JSON NOT NULL, 
	verdict JSON NOT NULL, 
	evaluation JSON NOT NULL, 
	trial JSON NOT NULL, 
	answers JSON NOT NULL, 
	cause VARCHAR(64) NOT NULL, 
	reason TEXT NOT NULL, 
	created VARCHAR(40) NOT NULL, 
	replaced INTEGER, canary JSON, 
	PRIMARY KEY (id), 
	UNIQUE (model, number)
);
INSERT INTO "releases" VALUES(1,'golden',1,'golden:16c86c939c9c9d98','{"snapshot": "01f30f3eb8bd9dce905503982106651813248daa61a7780a218cb75343d6e3b8", "spec": "9d37a925e5368797e6c76ebed58c16abfc3fd8a7b797252d85d2d0ec38c0bce8", "code": "4301946cb1fd4be2c5788ad1a2a2c6317bafa2589496b419c241348edfc60cc4", "artifact": "16c86c939c9c9d980965e43b1ddf644bbedc2b7a4889bc5d7a8396171045221d", "bento": "c9d66390130ee9cbac312872b1255d19ca470d8c8f22d9b60b3db2a71aa2787a"}','{"passed": true, "checks": [{"passed": true, "sentence": "rmse 0.1755 is at most the threshold 1, on 19 held-out rows"}, {"passed": true, "sentence": "better than always guessing: rmse 0.1755 against 6.328, difference -6.152, 95% interval -7.512 to -4.687"}], "reasons": ["rmse 0.1755 is at most the threshold 1, on 19 held-out rows", "better than always guessing: rmse 0.1755 against 6.328, difference -6.152, 95% interval -7.512 to -4.687"]}','{"metric": "rmse", "greater_is_better": false, "rows": 19, "challenger": {"rmse": 0.17547083164674093, "mae": 0.15414245036915217, "median_ae": 0.14953492094858234, "mape": 0.01114007994377135, "rmsle": 0.012126181025732678, "r2": 0.9990851424980697}, "baseline": {"rmse": 6.327915442787398, "mae": 5.488832725377802, "median_ae": 5.953564356435642, "mape": 0.44392143768411213, "rmsle": 0.4408402272938394, "r2": -0.18977521963934696}, "against_baseline": {"difference": -6.152444611140657, "low": -7.512412247571765, "high": -4.687013955347705, "confidence": 0.95}, "champion": null, "champion_release": null, "against_champion": null, "incomparable": null, "slices": [], "value": null}','{"passed": true, "problems": [], "answers": 84, "start_seconds": 4.35, "milliseconds": {"p50": 4.2, "p95": 9.65, "max": 22.25}}','{"by": "plan", "why": null, "proof": {"passed": true, "rows": 2406, "unanswered": 50, "wrong": 0, "problems": []}}','person','a golden fixture','2026-12-01T14:31:26+00:00',NULL,'null');
INSERT INTO "releases" VALUES(2,'golden',2,'golden:a599025351e9c697','{"snapshot": "2de3ec92a6ae5538af97609ad22942e1aa704fb0226788d031bf1c5249aa98bc", "spec": "e48200c5258bfabd9fe7ba452435510ccbffa5a28a0bbce3e00d0ef76fa66482", "code": "023e1fa3385a967dd6f3e67fc2b61b5de6bacd2380ead6752b06a35a90fef3a2", "artifact": "a599025351e9c69700b85eabf50e649c303ba81811dbb541d6ce7b4c32132c4a", "bento": "c2639b659dd9eb1fb08051ecb31c279a523d7b3497d2ded7331019bab5b78f7e"}','{"passed": true, "checks": [{"passed": true, "sentence": "rmse 0.1755 is at most the threshold 1, on 19 held-out rows"}, {"passed": true, "sentence": "better than always guessing: rmse 0.1755 against 6.328, difference -6.152, 95% interval -7.512 to -4.687"}], "reasons": ["rmse 0.1755 is at most the threshold 1, on 19 held-out rows", "better than always guessing: rmse 0.1755 against 6.328, difference -6.152, 95% interval -7.512 to -4.687"]}','{"metric": "rmse", "greater_is_better": false, "rows": 19, "challenger": {"rmse": 0.17547083164674093, "mae": 0.15414245036915217, "median_ae": 0.14953492094858234, "mape": 0.01114007994377135, "rmsle": 0.012126181025732678, "r2": 0.9990851424980697}, "baseline": {"rmse": 6.327915442787398, "mae": 5.488832725377802, "median_ae": 5.953564356435642, "mape": 0.44392143768411213, "rmsle": 0.4408402272938394, "r2": -0.18977521963934696}, "against_baseline": {"difference": -6.152444611140657, "low": -7.512412247571765, "high": -4.687013955347705, "confidence": 0.95}, "champion": null, "champion_release": null, "against_champion": null, "incomparable": null, "slices": [], "value": null}','{"passed": true, "problems": [], "answers": 84, "start_seconds": 4.35, "milliseconds": {"p50": 4.2, "p95": 9.65, "max": 22.25}}','{"by": "plan", "why": null, "proof": {"passed": true, "rows": 2406, "unanswered": 50, "wrong": 0, "problems": []}}','person','its package is not kept','2026-12-01T14:31:26+00:00',1,'null');
CREATE TABLE runs (
	id INTEGER NOT NULL, 
	model VARCHAR(64) NOT NULL, 
	outcome VARCHAR(32) NOT NULL, 
	cause VARCHAR(64) NOT NULL, 
	reasons JSON NOT NULL, 
	digests JSON NOT NULL, 
	release INTEGER, 
	started VARCHAR(40) NOT NULL, 
	seconds JSON NOT NULL, why TEXT, 
	PRIMARY KEY (id)
);
CREATE TABLE served (
	id INTEGER NOT NULL, 
	model VARCHAR(64) NOT NULL, 
	server VARCHAR(200) NOT NULL, 
	release INTEGER NOT NULL, 
	kind VARCHAR(32) NOT NULL, 
	reason TEXT NOT NULL, 
	at VARCHAR(40) NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE servers (
	model VARCHAR(64) NOT NULL, 
	server VARCHAR(200) NOT NULL, 
	release INTEGER, 
	state VARCHAR(32) NOT NULL, 
	reason TEXT NOT NULL, 
	seen INTEGER NOT NULL, 
	PRIMARY KEY (model, server)
);
CREATE INDEX ix_runs_model ON runs (model);
CREATE INDEX ix_served_model ON served (model);
CREATE INDEX ix_looks_model ON looks (model);
COMMIT;
