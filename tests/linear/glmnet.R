# Makes glmnet.json, the answers of R's glmnet that test_proximal.py holds ours to.
#
#   python -c "
#   import numpy as np; from sklearn.datasets import load_wine
#   X, y = load_wine(return_X_y=True); X = np.round((X - X.mean(0)) / X.std(0), 3)
#   np.savetxt('wine.csv', np.column_stack([X, y]), delimiter=',')"
#   Rscript tests/linear/glmnet.R wine.csv tests/linear/glmnet.json
#
# It needs the packages glmnet and jsonlite (Debian: r-cran-glmnet, r-cran-jsonlite).
library(glmnet)
library(jsonlite)

arguments <- commandArgs(TRUE)
table <- as.matrix(read.csv(arguments[1], header = FALSE))
x <- table[, -ncol(table)]
labels <- table[, ncol(table)]
n <- nrow(x)

# Along 20 penalties from 0.5, as its authors advise.
along <- function(y, alpha, lambda, ...) {
  path <- exp(seq(log(0.5), log(lambda), length.out = 20))
  fit <- glmnet(x, y, alpha = alpha, lambda = path, standardize = FALSE, thresh = 1e-15,
                maxit = 1e8, ...)
  last <- length(fit$lambda)
  stopifnot(last == 20)
  several <- is.list(fit$beta)
  beta <- if (several) fit$beta else list(fit$beta)
  coef <- t(sapply(beta, function(b) as.numeric(b[, last])))
  intercept <- if (several) fit$a0[, last] else fit$a0[last]
  list(coef = coef, intercept = as.numeric(intercept))
}

objective <- function(fit, codes, alpha, lambda, grouped) {
  z <- x %*% t(fit$coef) + rep(fit$intercept, each = n)
  if (ncol(z) == 1) z <- cbind(0, z)
  top <- apply(z, 1, max)
  loss <- top + log(rowSums(exp(z - top))) - z[cbind(seq_len(n), codes + 1)]
  square <- if (grouped) sum(sqrt(colSums(fit$coef^2))) else sum(fit$coef^2) / 2
  sum(loss) + n * lambda * ((1 - alpha) * square + alpha * sum(abs(fit$coef)))
}

cases <- list()
for (type in c("ungrouped", "grouped", "binary")) {
  for (alpha in if (type == "grouped") 1 else c(1, 0.5)) {
    for (lambda in c(0.1, 0.02)) {
      if (type == "binary") {
        codes <- as.integer(labels == 1)
        fit <- along(factor(codes), alpha, lambda, family = "binomial")
      } else {
        codes <- labels
        fit <- along(factor(codes), alpha, lambda, family = "multinomial", type.multinomial = type)
      }
      # glmnet's grouped penalty is ours without a share of L1.
      share <- if (type == "grouped") 0 else alpha
      value <- objective(fit, codes, share, lambda, type == "grouped")
      cases[[length(cases) + 1]] <- list(
        type = unbox(type), alpha = unbox(alpha), lam = unbox(lambda), objective = unbox(value),
        coef = round(fit$coef, 9), intercept = round(fit$intercept, 9)
      )
    }
  }
}
write(toJSON(cases, digits = NA), arguments[2])
